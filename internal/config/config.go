// Package config reads Closeout's settings from flags and the environment, and
// checks them all before anything starts.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/recording"
	"github.com/closeouthq/closeout/internal/usage"
	"github.com/closeouthq/closeout/zego"
)

// Config holds the settings, checked and with their defaults.
type Config struct {
	// Apps are the callback secrets of each app, the current one first.
	Apps map[uint32][]string
	// Listen is the address for callbacks.
	Listen string
	// TLSCert and TLSKey are PEM files, with which Listen speaks TLS; both empty: it
	// doesn't.
	TLSCert, TLSKey string
	// AdminListen is the address for health and metrics.
	AdminListen string
	// CallbackToken is the secret last segment of the callback's path, if any.
	CallbackToken string
	// CallbackWindow is how far a callback's timestamp may be off; 0: any.
	CallbackWindow time.Duration
	// IdleTimeout is how long a connection for callbacks may be idle.
	IdleTimeout time.Duration
	// Data is the folder for everything embedded, as an absolute path.
	Data string
	// Usage says that the callbacks of participant time are stored.
	Usage bool
	// DatabaseURL is where the ledger is.
	DatabaseURL string
	// RecordingsURL and ArchiveURL are bucket URLs.
	RecordingsURL, ArchiveURL string
	// MakeBuckets says that setup makes those of them that are s3://.
	MakeBuckets bool
	// ArchiveTransfers is how many recordings a worker copies at once.
	ArchiveTransfers int
	// RecordingsHosts are those that ZEGO's backup storage may be on; none: any public.
	RecordingsHosts []string
	// ArchiveClass, ArchiveEncryption and ArchiveTags are what the archive's store is
	// told of recordings, in its own words; empty: nothing.
	ArchiveClass, ArchiveEncryption string
	ArchiveTags                     map[string]string
	// DeleteRecordings says that recordings are deleted when they are archived.
	DeleteRecordings bool
	// Recordings says how it is known that a session's recordings are all there.
	Recordings Recordings
	// BillingURL is where bills are posted; empty: nowhere.
	BillingURL string
	// BillingToken authorizes that, if not empty.
	BillingToken string
	// Prices are what participants' time costs, if anything.
	Prices usage.Prices
	// MaxBill is the largest bill, in participant minutes, that is made without asking
	// a person; 0 is without a limit.
	MaxBill int64
	// MaxRoomLife is how long a room can live; 0 is without a limit.
	MaxRoomLife time.Duration
	// Settling is how long after its room_close a run starts, so that callbacks ZEGO is
	// still retrying are included.
	Settling time.Duration
	// ServerSecrets are the server secrets of apps, the current one first.
	ServerSecrets map[uint32][]string
	// ServerAPI is where ZEGO's server API is.
	ServerAPI string
	// OverdueAfter is for how long an open session may be silent.
	OverdueAfter time.Duration
	// ReconcileEvery is how often overdue sessions are looked at; 0: never.
	ReconcileEvery time.Duration
	// TaskQueue is Temporal's task queue.
	TaskQueue string
	// DeploymentName and BuildID make the worker a version of a Worker Deployment;
	// both empty: it isn't one.
	DeploymentName, BuildID string
	// Retention is for how long a namespace made by setup keeps closed runs.
	Retention time.Duration
	// StopTimeout is how long a stop waits for what is under way.
	StopTimeout time.Duration
	// DrainTimeout is how long a stop waits, after that, for the inbox to be empty.
	DrainTimeout time.Duration
	// LogLevel is the lowest level that is logged.
	LogLevel slog.Level
	// LogJSON says that logs are JSON.
	LogJSON bool
	// Traces says that traces are exported, as OpenTelemetry's own variables say.
	Traces bool
	// UIURL is where Temporal's Web UI is.
	UIURL string
	// PayloadKeys encrypt what Temporal keeps; none: nothing is encrypted.
	PayloadKeys codec.Keys
	// CodecListen is the address of the codec server.
	CodecListen string
	// CodecToken is what the codec server's callers have to show, if not empty.
	CodecToken string
	// AppWeights are the apps' shares of the workers; 1 for those that it lacks.
	AppWeights map[uint32]float32
	// Temporal says how to reach Temporal.
	Temporal client.Options
	// TemporalCert and TemporalKey are the files of the client certificate, if it has
	// one from files.
	TemporalCert, TemporalKey string
	// SecretFiles are the files that secrets were read from, and private keys.
	SecretFiles []SecretFile
}

// Recordings says how it is known that a session's recordings are all there.
type Recordings struct {
	// Expected is "none", "callback" or "bucket".
	Expected string
	// Prefix is where they lie in their bucket.
	Prefix recording.Prefix
	// Grace is how long one may take to show itself, Deadline how long they are waited
	// for, Stable for how long files have to stay as they are of which no callback
	// tells, and Poll the first pause between two looks.
	Grace, Deadline, Stable, Poll time.Duration
}

// Inbox is the folder of the callbacks that wait for Temporal.
func (c *Config) Inbox() string { return filepath.Join(c.Data, "inbox") }

// ArchiveOptions say how recordings are moved.
func (c *Config) ArchiveOptions() archive.Options {
	return archive.Options{
		SourceURL: c.RecordingsURL, ArchiveURL: c.ArchiveURL, Transfers: c.ArchiveTransfers,
		Hosts: c.RecordingsHosts, Class: c.ArchiveClass, Encryption: c.ArchiveEncryption, Tags: c.ArchiveTags, DeleteSources: c.DeleteRecordings,
	}
}

// LedgerInData says that the ledger is the one in the data folder.
func (c *Config) LedgerInData() bool { return c.DatabaseURL == ledgerIn(c.Data) }

func ledgerIn(data string) string { return "sqlite:" + filepath.Join(data, "ledger.db") }

// UsageInbox is the folder of the callbacks that wait for the ledger.
func (c *Config) UsageInbox() string { return filepath.Join(c.Data, "usage") }

// Setting is one setting: an environment variable, and a flag of the same name.
type Setting struct {
	// Env is the environment variable.
	Env string
	// Default is what it is when it isn't set.
	Default string
	// Usage says what it is for, in a line.
	Usage string
	// More says more, in Markdown, for the reference.
	More string
	// Secret says that it can also be a file: the one named by Env + "_FILE".
	Secret bool

	set func(c *Config, value string) error
}

// Flag is the name of the setting's flag: CLOSEOUT_ADMIN_LISTEN is admin-listen.
func (s Setting) Flag() string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s.Env, "CLOSEOUT_"), "_", "-"))
}

// Settings lists the settings, but for those of Temporal's client, whose names
// and files are Temporal's own.
func Settings() []Setting {
	return []Setting{
		{Env: "CLOSEOUT_APPS", Secret: true, Usage: "callback secrets, as appid=secret[,older-secret], several separated by ';' (in a file: one per line)",
			More: "Needed by what takes callbacks. The secret is the project's *CallbackSecret*, not its ServerSecret. Several secrets let you change one while callbacks signed with the other still come in. In a file, lines that begin with `#` are skipped.",
			set:  func(c *Config, v string) (err error) { c.Apps, err = parseApps(v); return err }},
		{Env: "CLOSEOUT_LISTEN", Default: ":8080", Usage: "address for callbacks",
			More: "Nothing but callbacks, and the endpoints of `Service.Hooks` below `/hooks/`, is served there. Put what terminates TLS in front of it, or set `CLOSEOUT_TLS_CERT`.",
			set:  func(c *Config, v string) error { c.Listen = v; return checkAddress(v) }},
		{Env: "CLOSEOUT_TLS_CERT", Usage: "PEM file with the certificate for callbacks, and those between it and its root (default: no TLS)",
			More: "Together with `CLOSEOUT_TLS_KEY`. `closeout codec` uses it as well. A new connection has the files read again if that was five seconds ago, so they can be replaced at any time; while they are no pair, the old one stays in use and the log says so. TLS 1.2 or later, HTTP/1.1.",
			set:  func(c *Config, v string) error { c.TLSCert = v; return nil }},
		{Env: "CLOSEOUT_TLS_KEY", Usage: "PEM file with the key of that certificate",
			set: func(c *Config, v string) error { c.TLSKey = v; return nil }},
		{Env: "CLOSEOUT_ADMIN_LISTEN", Default: "127.0.0.1:9090", Usage: "address for /livez, /readyz, /metrics and /debug/pprof; keep it private",
			More: "Each process listens there: two of them on one machine need two addresses.",
			set:  func(c *Config, v string) error { c.AdminListen = v; return checkAddress(v) }},
		{Env: "CLOSEOUT_CALLBACK_TOKEN", Secret: true, Usage: "secret last segment of the callback's path: /zego/callbacks/<token>",
			More: "A second lock, as ZEGO's signature doesn't cover the body. At least 8 letters, digits, `-` and `_`.",
			set:  func(c *Config, v string) error { c.CallbackToken = v; return checkToken(v) }},
		{Env: "CLOSEOUT_CALLBACK_WINDOW", Default: "10m", Usage: "how far a callback's timestamp may be from our clock; 0 accepts any",
			More: "ZEGO's retries come within about 62 seconds; the rest is for clocks that are wrong.",
			set: func(c *Config, v string) (err error) {
				if c.CallbackWindow, err = parseDuration(v); err == nil && c.CallbackWindow != 0 && c.CallbackWindow < time.Second {
					err = fmt.Errorf("found %q, want 0 or at least 1s", v)
				}
				return err
			}},
		{Env: "CLOSEOUT_IDLE_TIMEOUT", Default: "620s", Usage: "how long a connection for callbacks may be idle",
			More: "Longer than that of the load balancer in front, 60 seconds with most: else a callback can come just when its connection is closed here, and is lost.",
			set: func(c *Config, v string) (err error) {
				if c.IdleTimeout, err = parseDuration(v); err == nil && c.IdleTimeout < time.Second {
					err = fmt.Errorf("found %q, want at least 1s", v)
				}
				return err
			}},
		{Env: "CLOSEOUT_DATA", Default: "./data", Usage: "folder for everything embedded",
			More: "For a webhook it has to last, and be its own: the inbox is in it. A second process on the same inbox is refused.",
			set:  func(c *Config, v string) (err error) { c.Data, err = filepath.Abs(v); return err }},
		{Env: "CLOSEOUT_DATABASE_URL", Secret: true, Usage: "the ledger, postgres://... or sqlite:/path (default: sqlite in the data folder)",
			More: "One for all webhooks and workers: webhooks store in it what callbacks tell of participants. `closeout setup` makes the tables, and may be run at any time.",
			set: func(c *Config, v string) error {
				c.DatabaseURL = v
				return checkScheme(v, "postgres", "postgresql", "sqlite")
			}},
		{Env: "CLOSEOUT_USAGE", Default: "on", Usage: "whether room_create, room_login and room_logout are stored, for the bills: on or off",
			More: "The same for webhook and worker. If it is off, these callbacks are acknowledged and ignored, and bills have no participant time and say why. Genuine callbacks that are refused, and a second room_close that contradicts the first, are then in metrics and the log alone.",
			set: func(c *Config, v string) error {
				c.Usage = v == "on"
				if !c.Usage && v != "off" {
					return fmt.Errorf("found %q, want on or off", v)
				}
				return nil
			}},
		{Env: "CLOSEOUT_RECORDINGS_URL", Usage: "bucket that recordings are uploaded to, file://, s3://, gs:// or azblob:// (default: a folder in the data folder)",
			More: "See [the URLs](archive.md#settings-of-the-buckets). A session's recordings are those below `<appid>/<room_session_id>/`.",
			set: func(c *Config, v string) error {
				c.RecordingsURL = v
				return archive.CheckURL(v)
			}},
		{Env: "CLOSEOUT_ARCHIVE_URL", Usage: "bucket that recordings are archived in (default: a folder in the data folder)",
			More: "Another bucket or prefix than that of the recordings.",
			set: func(c *Config, v string) error {
				c.ArchiveURL = v
				return archive.CheckURL(v)
			}},
		{Env: "CLOSEOUT_MAKE_BUCKETS", Default: "false", Usage: "whether setup makes the buckets that are s3:// and not there: true or false",
			More: "Read by `closeout setup` alone, for development and stores of your own. A bucket that is there is left alone.",
			set: func(c *Config, v string) error {
				c.MakeBuckets = v == "true"
				if !c.MakeBuckets && v != "false" {
					return fmt.Errorf("found %q, want true or false", v)
				}
				return nil
			}},
		{Env: "CLOSEOUT_ARCHIVE_TRANSFERS", Default: "4", Usage: "how many recordings a worker copies at once",
			More: "Whatever the number of sessions. Each needs about 11 MiB of memory. From 1 to 64.",
			set: func(c *Config, v string) (err error) {
				if c.ArchiveTransfers, err = strconv.Atoi(v); err != nil || c.ArchiveTransfers < 1 || c.ArchiveTransfers > 64 {
					return fmt.Errorf("found %q, want a number from 1 to 64", v)
				}
				return nil
			}},
		{Env: "CLOSEOUT_ARCHIVE_CLASS", Usage: "storage class of archived recordings, as the archive's store calls it (default: that of the bucket)",
			More: "Such as `STANDARD_IA` or `GLACIER_IR` of S3, `NEARLINE` of Google Cloud Storage, `Cool` of Azure. Manifests keep the class of the bucket, as they are read again. See [recordings](archive.md#what-the-store-is-told).",
			set:  func(c *Config, v string) error { c.ArchiveClass = v; return nil }},
		{Env: "CLOSEOUT_ARCHIVE_ENCRYPTION", Usage: "how the archive's store encrypts, as it calls that (default: as the bucket says)",
			More: "S3: `AES256`, `aws:kms` or `aws:kms:dsse`, and `=` with a key's id or ARN behind it. Google Cloud Storage: the name of a Cloud KMS key. Azure: an encryption scope.",
			set:  func(c *Config, v string) error { c.ArchiveEncryption = v; return nil }},
		{Env: "CLOSEOUT_ARCHIVE_TAGS", Usage: "tags of archived objects, as name=value[,name=value] (default: none)",
			More: "For S3 and Azure, which let lifecycle rules choose by tags.",
			set:  func(c *Config, v string) (err error) { c.ArchiveTags, err = parseTags(v); return err }},
		{Env: "CLOSEOUT_RECORDINGS_DELETE", Default: "false", Usage: "delete recordings from their bucket when they are archived",
			More: "Only what was verified in the archive and is listed in the manifest, after that was read back, only if it is still what was archived, and only in a folder of its app: `<appid>/`, or a `CLOSEOUT_RECORDINGS_PREFIX` with `{{.appid}}/` in it.",
			set: func(c *Config, v string) (err error) {
				if c.DeleteRecordings, err = strconv.ParseBool(v); err != nil {
					return fmt.Errorf("found %q, want true or false", v)
				}
				return nil
			}},
		{Env: "CLOSEOUT_RECORDINGS", Default: "none", Usage: "how it is known that a session's recordings are all there: none, callback or bucket",
			More: "`none`: no recordings are expected, and what is in the session's folder is archived at once. `callback`: ZEGO's recording callback comes to the same address as the others. `bucket`: it doesn't, and the bucket is watched. See [recordings](recordings.md).",
			set: func(c *Config, v string) error {
				if c.Recordings.Expected = v; v != "none" && v != "callback" && v != "bucket" {
					return fmt.Errorf("found %q, want none, callback or bucket", v)
				}
				return nil
			}},
		{Env: "CLOSEOUT_RECORDINGS_PREFIX", Default: recording.DefaultPrefix, Usage: "where a session's recordings lie in their bucket, as a Go template of appid, room_id and room_session_id",
			More: "Beside the folder `<appid>/<room_session_id>/`, in which they are always looked for. `/` is the whole bucket. Where it doesn't name the session, files are told apart by their names, as ZEGO gives them.",
			set:  func(c *Config, v string) (err error) { c.Recordings.Prefix, err = recording.ParsePrefix(v); return err }},
		{Env: "CLOSEOUT_RECORDINGS_HOSTS", Usage: "hosts that files in ZEGO's backup storage may be read from, separated by commas (default: any with a public address)",
			More: "As in `storage.example.com,*.example.net`: callbacks name these servers, and this is whom you believe. A file on another one blocks the step, which names the host.",
			set:  func(c *Config, v string) (err error) { c.RecordingsHosts, err = archive.ParseHosts(v); return err }},
		{Env: "CLOSEOUT_RECORDINGS_GRACE", Default: "2m", Usage: "how long after the room's end a recording may show itself",
			More: "A session of which no recording is known by then has none. With `bucket` it has to be longer than the longest upload.",
			set:  func(c *Config, v string) (err error) { c.Recordings.Grace, err = parseDuration(v); return err }},
		{Env: "CLOSEOUT_RECORDINGS_STABLE", Default: "10m", Usage: "for how long files of which no callback tells have to stay as they are to be complete",
			set: func(c *Config, v string) (err error) { c.Recordings.Stable, err = parseDuration(v); return err }},
		{Env: "CLOSEOUT_RECORDINGS_DEADLINE", Default: "72h", Usage: "for how long missing recordings are waited for",
			More: "Then the step is blocked, and says which are missing. ZEGO records for 48 hours at most, and keeps in its backup storage for 72 hours what it can't upload. At most `336h`.",
			set: func(c *Config, v string) (err error) {
				if c.Recordings.Deadline, err = parseDuration(v); err == nil && (c.Recordings.Deadline < time.Second || c.Recordings.Deadline > 336*time.Hour) {
					err = fmt.Errorf("found %q, want 1s to 336h", v)
				}
				return err
			}},
		{Env: "CLOSEOUT_RECORDINGS_POLL", Default: "10s", Usage: "the first pause between two looks for missing recordings; it grows to 15m",
			More: "A callback has them looked for at once.",
			set: func(c *Config, v string) (err error) {
				if c.Recordings.Poll, err = parseDuration(v); err == nil && (c.Recordings.Poll < time.Second || c.Recordings.Poll > 15*time.Minute) {
					err = fmt.Errorf("found %q, want 1s to 15m", v)
				}
				return err
			}},
		{Env: "CLOSEOUT_BILLING_URL", Usage: "HTTP API that bills are posted to (default: none)",
			More: "Each bill, and each adjustment, is posted as a CloudEvents 1.0 event with an `Idempotency-Key`; see [bills](bills.md#what-the-billing-api-hears). 2xx and 409 are done, 408 and 429 are tried again, other 4xx block the step, and all else is tried again.",
			set:  func(c *Config, v string) error { c.BillingURL = v; return checkScheme(v, "http", "https") }},
		{Env: "CLOSEOUT_BILLING_TOKEN", Secret: true, Usage: "bearer token for that API",
			set: func(c *Config, v string) error { c.BillingToken = v; return nil }},
		{Env: "CLOSEOUT_PRICES", Usage: "prices of a participant's minute, as appid=currency amount, or *=... for all other apps, several separated by ';' (default: none, bills have no amount)",
			More: "The amount is an integer of the currency's minor units: `*=EUR 2; 1234567890=EUR 3` is 2 cents, and 3 of one app. A session costs its minutes, which are rounded up once, times the price. Read by what runs workflows; a change is for new bills, and an adjustment has the price of its bill. See [bills](bills.md).",
			set:  func(c *Config, v string) (err error) { c.Prices, err = parsePrices(v); return err }},
		{Env: "CLOSEOUT_MAX_BILL", Default: "1000000", Usage: "largest bill that is made without asking a person, in participant minutes; 0: no limit",
			More: "A larger one, or an adjustment that makes it larger, blocks the step `billing` and says how large it is; a person who has the step retried approves it. A million minutes are 350 people for two days. Read by what runs workflows. See [bills](bills.md#when-a-person-is-asked).",
			set: func(c *Config, v string) (err error) {
				if c.MaxBill, err = strconv.ParseInt(v, 10, 64); err != nil || c.MaxBill < 0 {
					return fmt.Errorf("found %q, want minutes, 0 or more", v)
				}
				return nil
			}},
		{Env: "CLOSEOUT_MAX_ROOM_LIFE", Default: "168h", Usage: "how long a room can live, and a stay in it, at most; 0: no limit",
			More: "Times that lie further back than that from when ZEGO sent the callback aren't believed: see [bills](bills.md#times-that-cant-be). At least `1h`, as a callback may be late. The same for webhooks and workers.",
			set: func(c *Config, v string) (err error) {
				if c.MaxRoomLife, err = parseDuration(v); err == nil && c.MaxRoomLife != 0 && c.MaxRoomLife < time.Hour {
					err = fmt.Errorf("found %q, want 0, or 1h or more", v)
				}
				return err
			}},
		{Env: "CLOSEOUT_SETTLING", Default: "90s", Usage: "how long after its room_close a run starts, so that callbacks ZEGO is still retrying are included",
			More: "ZEGO retries a callback for 62 seconds. What arrives later still makes an adjustment. Read by what starts runs: the webhook, and a worker's reconciliation. A run keeps the time that it was started with. Workflows of yours can [start at once](workflows.md#when-a-run-starts).",
			set:  func(c *Config, v string) (err error) { c.Settling, err = parseDuration(v); return err }},
		{Env: "CLOSEOUT_SERVER_SECRETS", Secret: true, Usage: "server secrets of apps, appid=secret, separated by ';' or line ends (default: none, overdue sessions are only reported)",
			More: "The ServerSecret of the ZEGO console, not the CallbackSecret: with it ZEGO's server API is asked about sessions whose `room_close` is overdue. Read by workers. While one is replaced, put the other behind a comma. See [reconciliation](reconciliation.md).",
			set:  func(c *Config, v string) (err error) { c.ServerSecrets, err = parseApps(v); return err }},
		{Env: "CLOSEOUT_SERVER_API_URL", Default: zego.ServerAPI, Usage: "ZEGO's server API",
			More: "One of ZEGO's regions is `https://rtc-api-fra.zego.im`, for instance. It has to be https, but on this machine.",
			set: func(c *Config, v string) error {
				c.ServerAPI = v
				if _, err := zego.NewClient(v, nil); err != nil {
					return errors.New(strings.TrimPrefix(err.Error(), "zego: "))
				}
				return nil
			}},
		{Env: "CLOSEOUT_OVERDUE_AFTER", Default: "10m", Usage: "for how long a session may be silent before it is asked about",
			More: "Since the last callback about its users, or the last answer that somebody is in it. Less than `3m` asks too early: who loses the connection is still in the room for 100 s, and ZEGO tries a callback for 62 s.",
			set:  func(c *Config, v string) (err error) { c.OverdueAfter, err = parseDuration(v); return err }},
		{Env: "CLOSEOUT_RECONCILE_INTERVAL", Default: "1m", Usage: "how often overdue sessions are looked at, bills adjusted and late recordings added; 0: never",
			More: "One of the workers looks whether any of that is due, and starts a run only then. A session is asked about at most every minute.",
			set: func(c *Config, v string) (err error) {
				if c.ReconcileEvery, err = parseDuration(v); err == nil && c.ReconcileEvery != 0 && c.ReconcileEvery < time.Second {
					err = fmt.Errorf("found %q, want 0 or at least 1s", v)
				}
				return err
			}},
		{Env: "CLOSEOUT_TASK_QUEUE", Default: "closeout", Usage: "Temporal task queue",
			More: "The same for webhook and worker.",
			set:  func(c *Config, v string) error { c.TaskQueue = v; return nil }},
		{Env: "TEMPORAL_DEPLOYMENT_NAME", Usage: "Worker Deployment that the worker belongs to; its runs are pinned to their version (default: none, no Worker Versioning)",
			More: "Without `.` and `:`. Together with `TEMPORAL_WORKER_BUILD_ID`; both are set by Temporal's Worker Controller. See [changing workflows](changing-workflows.md).",
			set:  func(c *Config, v string) error { c.DeploymentName = v; return checkDeployment(v) }},
		{Env: "TEMPORAL_WORKER_BUILD_ID", Usage: "the worker's version in that deployment",
			set: func(c *Config, v string) error { c.BuildID = v; return nil }},
		{Env: "CLOSEOUT_APP_WEIGHTS", Usage: "shares of apps in the workers, as appid=weight, several separated by ';' (default: the same for all)",
			More: "From 0.001 to 1000, and 1 for an app that isn't listed. They count while runs of several apps wait for a worker, if Temporal's task queues are fair: see [Temporal](temporal.md#fairness-between-apps).",
			set:  func(c *Config, v string) (err error) { c.AppWeights, err = parseWeights(v); return err }},
		{Env: "CLOSEOUT_PAYLOAD_KEYS", Secret: true, Usage: "keys that encrypt what Temporal keeps, as name=key, several separated by ';' (in a file: one per line; default: none, and nothing is encrypted)",
			More: "A key is 32 bytes in base64. The first one encrypts, and all decrypt. The same for webhooks, workers and commands; read at the start. See [encryption](temporal.md#encryption).",
			set:  func(c *Config, v string) (err error) { c.PayloadKeys, err = codec.ParseKeys(v); return err }},
		{Env: "CLOSEOUT_CODEC_LISTEN", Default: "127.0.0.1:8081", Usage: "address of `closeout codec`, which decrypts for Temporal's Web UI and command line",
			More: "Who reaches it can read everything, unless `CLOSEOUT_CODEC_TOKEN` is set; on another address than the loopback it has to be.",
			set:  func(c *Config, v string) error { c.CodecListen = v; return checkAddress(v) }},
		{Env: "CLOSEOUT_CODEC_TOKEN", Secret: true, Usage: "bearer token that callers of `closeout codec` have to show (default: none)",
			set: func(c *Config, v string) error { c.CodecToken = v; return checkToken(v) }},
		{Env: "CLOSEOUT_RETENTION", Default: "720h", Usage: "for how long a namespace that setup makes keeps closed runs",
			More: "Read by `closeout setup` alone. At least `24h`, which is Temporal's minimum. A workflow ID is refused a second time for as long as its run is kept.",
			set: func(c *Config, v string) (err error) {
				if c.Retention, err = parseDuration(v); err == nil && c.Retention < 24*time.Hour {
					err = fmt.Errorf("found %q, want at least 24h, Temporal's own minimum", v)
				}
				return err
			}},
		{Env: "CLOSEOUT_UI_URL", Default: "http://localhost:8233", Usage: "where Temporal's Web UI is",
			More: "Read by `closeout status`, which links to it, and `closeout codec`, which lets its pages call. Of Temporal Cloud it is `https://cloud.temporal.io`.",
			set:  func(c *Config, v string) error { c.UIURL = v; return checkScheme(v, "http", "https") }},
		{Env: "CLOSEOUT_STOP_TIMEOUT", Default: "10s", Usage: "how long a stop waits for what is under way",
			More: "First for callbacks that are being answered, then for steps.",
			set:  func(c *Config, v string) (err error) { c.StopTimeout, err = parseDuration(v); return err }},
		{Env: "CLOSEOUT_DRAIN_TIMEOUT", Default: "10s", Usage: "how long a stop goes on handing what is in the inbox to Temporal",
			More: "Once no more callbacks come in, and not while Temporal is away. What is left stays on the disk, and the next start on the same folder goes on with it.",
			set:  func(c *Config, v string) (err error) { c.DrainTimeout, err = parseDuration(v); return err }},
		{Env: "CLOSEOUT_LOG_LEVEL", Default: "info", Usage: "lowest level to log: debug, info, warn or error",
			set: func(c *Config, v string) error {
				if c.LogLevel.UnmarshalText([]byte(v)) != nil {
					return fmt.Errorf("found %q, want debug, info, warn or error", v)
				}
				return nil
			}},
		{Env: "CLOSEOUT_LOG_FORMAT", Default: "text", Usage: "text or json",
			set: func(c *Config, v string) error {
				c.LogJSON = v == "json"
				if !c.LogJSON && v != "text" {
					return fmt.Errorf("found %q, want text or json", v)
				}
				return nil
			}},
	}
}

// Load reads the settings: from flag, which knows those given on the command
// line by their flag, else from the environment. The error names every setting
// that is at fault. CLOSEOUT_APPS is needed if apps says so.
func Load(flag func(name string) (string, bool), apps bool) (*Config, error) {
	c := &Config{}
	var faults []error
	for _, s := range Settings() {
		value, name, err := s.find(flag)
		if file := s.file(flag); file != "" {
			c.SecretFiles = append(c.SecretFiles, SecretFile{s.Env + "_FILE", file})
		}
		if err == nil && value != "" {
			err = s.set(c, value)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
		if s.Env == "CLOSEOUT_APPS" && apps && err == nil && value == "" {
			faults = append(faults, errors.New("CLOSEOUT_APPS: missing, want appid=secret, as in CLOSEOUT_APPS='1234567890=your-callback-secret'"))
		}
	}
	c.DatabaseURL = cmp.Or(c.DatabaseURL, ledgerIn(c.Data))
	c.RecordingsURL = cmp.Or(c.RecordingsURL, folderURL(c.Data, "recordings"))
	c.ArchiveURL = cmp.Or(c.ArchiveURL, folderURL(c.Data, "archive"))

	if err := archive.Apart(c.RecordingsURL, c.ArchiveURL); err != nil {
		// Archived files would be found as recordings, and archived again.
		faults = append(faults, fmt.Errorf("CLOSEOUT_ARCHIVE_URL: %w", err))
	}

	if err := c.ArchiveOptions().Check(); err != nil {
		faults = append(faults, fmt.Errorf("CLOSEOUT_ARCHIVE_CLASS, CLOSEOUT_ARCHIVE_ENCRYPTION, CLOSEOUT_ARCHIVE_TAGS: %w", err))
	}

	if c.DeleteRecordings && c.Recordings.Expected != "none" && c.Recordings.Prefix.AppFolder(1) == "" {
		faults = append(faults, errors.New("CLOSEOUT_RECORDINGS_DELETE: found true together with a CLOSEOUT_RECORDINGS_PREFIX that several apps may share, want {{.appid}}/ in it, as recordings are deleted only below a folder of their app"))
	}
	if c.Recordings.Expected == "callback" && !c.Usage {
		faults = append(faults, errors.New("CLOSEOUT_RECORDINGS: found callback together with CLOSEOUT_USAGE=off, want it on, as recording callbacks are stored in the same way, or bucket"))
	}
	if r := c.Recordings; r.Deadline != 0 && (r.Grace > r.Deadline || r.Stable > r.Deadline) {
		faults = append(faults, fmt.Errorf("CLOSEOUT_RECORDINGS_DEADLINE: found %v, want no less than CLOSEOUT_RECORDINGS_GRACE (%v) and CLOSEOUT_RECORDINGS_STABLE (%v)", r.Deadline, r.Grace, r.Stable))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		faults = append(faults, errors.New("CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: found one of the two, want both or none"))
	}
	if (c.DeploymentName == "") != (c.BuildID == "") {
		faults = append(faults, errors.New("TEMPORAL_DEPLOYMENT_NAME, TEMPORAL_WORKER_BUILD_ID: found one of the two, want both or none"))
	}

	var err error
	if err = c.loadTemporal(); err != nil {
		faults = append(faults, fmt.Errorf("TEMPORAL_*: %w", err))
	}
	for _, key := range []SecretFile{{"CLOSEOUT_TLS_KEY", c.TLSKey}, {"TEMPORAL_TLS_CLIENT_KEY_PATH", c.TemporalKey}} {
		if key.Path != "" {
			c.SecretFiles = append(c.SecretFiles, key)
		}
	}
	if c.Traces, err = traces(); err != nil {
		faults = append(faults, err)
	}
	c.Temporal.HostPort = cmp.Or(c.Temporal.HostPort, client.DefaultHostPort)
	c.Temporal.Namespace = cmp.Or(c.Temporal.Namespace, client.DefaultNamespace)
	return c, errors.Join(faults...)
}

// loadTemporal reads the settings of Temporal's client.
func (c *Config) loadTemporal() error {
	profile, err := envconfig.LoadClientConfigProfile(envconfig.LoadClientConfigProfileOptions{})
	if err != nil {
		return err
	}
	if tls := profile.TLS; tls != nil && !tls.Disabled {
		c.TemporalCert, c.TemporalKey = tls.ClientCertPath, tls.ClientKeyPath
	}
	c.Temporal, err = profile.ToClientOptions(envconfig.ToClientOptionsRequest{})
	return err
}

// SecretFile is a file that holds a secret, and the setting that names it.
type SecretFile struct{ Setting, Path string }

// file returns the file that a secret is in; empty if it is in none.
func (s Setting) file(flag func(string) (string, bool)) string {
	if !s.Secret {
		return ""
	}
	if v, ok := flag(s.Flag() + "-file"); ok {
		return v
	}
	return os.Getenv(s.Env + "_FILE")
}

// find gives the setting's value, and the name of where it came from.
func (s Setting) find(flag func(string) (string, bool)) (value, name string, err error) {
	if v, ok := flag(s.Flag()); ok {
		return v, "--" + s.Flag(), nil
	}
	value, name = os.Getenv(s.Env), s.Env
	if !s.Secret {
		return cmp.Or(value, s.Default), name, nil
	}
	file := s.file(flag)
	switch {
	case file == "":
		return value, name, nil
	case value != "":
		return "", name, fmt.Errorf("set together with %s_FILE, want one of the two", s.Env)
	}
	name = s.Env + "_FILE"
	b, err := os.ReadFile(file)
	if err != nil {
		return "", name, fmt.Errorf("read the secret: %w", err)
	}
	// Editors of Windows begin a file so.
	if bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff}) {
		return "", name, fmt.Errorf("%s is in UTF-16, want UTF-8", file)
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	if value = strings.TrimSpace(string(b)); value == "" {
		return "", name, fmt.Errorf("%s is empty", file)
	}
	return value, name, nil
}

// parseApps parses appid=secret[,older-secret], separated by semicolons or line
// ends. Its errors don't show a secret.
func parseApps(s string) (map[uint32][]string, error) {
	apps := map[uint32][]string{}
	var faults []error
	n := 0
	for entry := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ';' || r == '\n' }) {
		if entry = strings.TrimSpace(entry); entry == "" || entry[0] == '#' {
			continue
		}
		n++
		id, list, _ := strings.Cut(entry, "=")
		app, err := strconv.ParseUint(strings.TrimSpace(id), 10, 32)
		secrets := strings.Split(list, ",")
		for i := range secrets {
			secrets[i] = strings.TrimSpace(secrets[i])
		}
		switch {
		case err != nil:
			// What stands there may be a secret that lacks its appid.
			faults = append(faults, fmt.Errorf("entry %d: doesn't begin with an appid, want appid=secret[,older-secret]", n))
		case len(apps[uint32(app)]) > 0:
			faults = append(faults, fmt.Errorf("entry %d: app %d is there twice, want its secrets in one entry, separated by commas", n, app))
		case slices.Contains(secrets, ""):
			faults = append(faults, fmt.Errorf("entry %d: app %d has an empty secret, want %d=secret[,older-secret]", n, app, app))
		default:
			apps[uint32(app)] = secrets
		}
	}
	if n == 0 {
		faults = append(faults, errors.New("no app in it, want appid=secret[,older-secret]"))
	}
	return apps, errors.Join(faults...)
}

// parseWeights parses appid=weight, separated by semicolons.
func parseWeights(s string) (map[uint32]float32, error) {
	weights := map[uint32]float32{}
	for entry := range strings.SplitSeq(s, ";") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		id, text, _ := strings.Cut(entry, "=")
		app, err := strconv.ParseUint(strings.TrimSpace(id), 10, 32)
		weight, notANumber := strconv.ParseFloat(strings.TrimSpace(text), 32)
		if err != nil || notANumber != nil || !(0.001 <= weight && weight <= 1000) {
			return nil, fmt.Errorf("found %q, want appid=weight, the weight from 0.001 to 1000", entry)
		}
		if _, twice := weights[uint32(app)]; twice {
			return nil, fmt.Errorf("app %d is there twice, want it once", app)
		}
		weights[uint32(app)] = float32(weight)
	}
	return weights, nil
}

// parseTags parses name=value[,name=value].
func parseTags(s string) (map[string]string, error) {
	tags := map[string]string{}
	for entry := range strings.SplitSeq(s, ",") {
		name, value, found := strings.Cut(strings.TrimSpace(entry), "=")
		if name == "" || !found {
			return nil, fmt.Errorf("found %q, want name=value[,name=value]", entry)
		}
		if _, twice := tags[name]; twice {
			return nil, fmt.Errorf("found %q twice, want each name once", name)
		}
		tags[name] = value
	}
	return tags, nil
}

// parsePrices parses appid=currency amount, separated by semicolons or line ends;
// the app * is all others.
func parsePrices(s string) (usage.Prices, error) {
	const want = "want appid=currency amount, as in 1234567890=EUR 2, or *=EUR 2 for all other apps"
	prices := usage.Prices{Apps: map[uint32]usage.Price{}}
	var faults []error
	for entry := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ';' || r == '\n' }) {
		if entry = strings.TrimSpace(entry); entry == "" || entry[0] == '#' {
			continue
		}
		id, price, _ := strings.Cut(entry, "=")
		id = strings.TrimSpace(id)
		app, appErr := strconv.ParseUint(id, 10, 32)
		words := append(strings.Fields(price), "", "")
		amount, err := strconv.ParseUint(words[1], 10, 63)
		_, twice := prices.Apps[uint32(app)]
		if id == "*" {
			appErr, twice = nil, prices.Default.Currency != ""
		}
		switch {
		case appErr != nil || len(words) != 4:
			faults = append(faults, fmt.Errorf("found %q, %s", entry, want))
		case !currency.MatchString(words[0]):
			faults = append(faults, fmt.Errorf("found currency %q in %q, want the three capital letters of ISO 4217, as in EUR", words[0], entry))
		case err != nil:
			faults = append(faults, fmt.Errorf("found amount %q in %q, want an integer of the currency's minor units, such as cents", words[1], entry))
		case twice:
			faults = append(faults, fmt.Errorf("app %s is there twice, want one price", id))
		case id == "*":
			prices.Default = usage.Price{Currency: words[0], PerMinute: int64(amount)}
		default:
			prices.Apps[uint32(app)] = usage.Price{Currency: words[0], PerMinute: int64(amount)}
		}
	}
	return prices, errors.Join(faults...)
}

// currency is what a code of ISO 4217 looks like.
var currency = regexp.MustCompile(`^[A-Z]{3}$`)

// traces says whether there are to be traces: where OpenTelemetry's own variables
// name their exporter or a place for them. Of those it checks what the exporter
// would only complain of later, or pass over.
func traces() (bool, error) {
	const everything, ours = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	switch {
	case strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none":
		return false, nil
	case exporter == "" && os.Getenv(everything) == "" && os.Getenv(ours) == "":
		return false, nil
	case exporter != "" && exporter != "otlp":
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER: found %q, want otlp or none", exporter)
	}
	var faults []error
	for _, name := range []string{everything, ours} {
		if v := os.Getenv(name); v != "" {
			if err := checkScheme(v, "http", "https"); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	protocol := "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" // wins over the other one
	if os.Getenv(protocol) == "" {
		protocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
	}
	if v := os.Getenv(protocol); v != "" && v != "http/protobuf" {
		faults = append(faults, fmt.Errorf("%s: found %q, want http/protobuf, which collectors take at port 4318", protocol, v))
	}
	return true, errors.Join(faults...)
}

func checkAddress(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("found %q, want host:port, as in 127.0.0.1:8080 or :8080", v)
	}
	return nil
}

var token = regexp.MustCompile(`^[A-Za-z0-9_-]{8,}$`)

func checkToken(v string) error {
	if !token.MatchString(v) {
		return errors.New("want at least 8 letters, digits, '-' and '_'")
	}
	return nil
}

// checkDeployment keeps the characters out that Temporal parts it from the build
// ID by.
func checkDeployment(v string) error {
	if strings.ContainsAny(v, ".:") {
		return fmt.Errorf("found %q, want no '.' and no ':' in it", v)
	}
	return nil
}

// checkScheme doesn't show the URL, which may hold a password.
func checkScheme(v string, schemes ...string) error {
	u, err := url.Parse(v)
	if err == nil && slices.Contains(schemes, u.Scheme) {
		return nil
	}
	return fmt.Errorf("not a URL with one of the schemes %s", strings.Join(schemes, ", "))
}

func parseDuration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("found %q, want a duration such as 10m or 1h30m", v)
	}
	return d, nil
}

// folderURL is a bucket in the data folder.
func folderURL(data, name string) string {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(data, name)), RawQuery: "create_dir=true"}
	return u.String()
}

// LogValue implements [slog.LogValuer]. It shows no secret: of URLs only the
// scheme and the host.
func (c *Config) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Any("apps", slices.Sorted(maps.Keys(c.Apps))),
		slog.String("listen", c.Listen),
		slog.String("tls_cert", c.TLSCert),
		slog.String("admin_listen", c.AdminListen),
		slog.Bool("callback_token", c.CallbackToken != ""),
		slog.Duration("callback_window", c.CallbackWindow),
		slog.Duration("idle_timeout", c.IdleTimeout),
		slog.String("data", c.Data),
		slog.String("database", Where(c.DatabaseURL)),
		slog.Bool("usage", c.Usage),
		slog.String("recordings", Where(c.RecordingsURL)),
		slog.String("archive", Where(c.ArchiveURL)),
		slog.String("recordings_expected", c.Recordings.Expected),
		slog.String("billing", Where(c.BillingURL)),
		slog.Int64("max_bill", c.MaxBill),
		slog.Duration("max_room_life", c.MaxRoomLife),
		slog.Duration("settling", c.Settling),
		slog.Any("server_secrets", slices.Sorted(maps.Keys(c.ServerSecrets))),
		slog.String("server_api", Where(c.ServerAPI)),
		slog.Duration("overdue_after", c.OverdueAfter),
		slog.Duration("reconcile_interval", c.ReconcileEvery),
		slog.String("temporal", c.Temporal.HostPort),
		slog.String("namespace", c.Temporal.Namespace),
		slog.String("task_queue", c.TaskQueue),
		slog.String("deployment", c.DeploymentName),
		slog.String("build_id", c.BuildID),
		slog.Any("payload_keys", c.PayloadKeys.Names()),
		slog.Bool("traces", c.Traces),
	)
}

// Where is what may be shown of a URL: for what is on this machine its path, else
// the scheme and the host.
func Where(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || rawURL == "" {
		return ""
	}
	if u.Host == "" || u.Scheme == "file" || u.Scheme == "sqlite" {
		return cmp.Or(u.Opaque, u.Path)
	}
	return u.Scheme + "://" + u.Host
}
