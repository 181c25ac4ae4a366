package config

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// Setting is one setting: an environment variable, and a flag of the same name.
type Setting struct {
	// Env is the environment variable.
	Env string
	// Default is the value of an unset setting.
	Default string
	// UsedBy lists the commands that use it; operator commands are one.
	UsedBy string
	// Usage describes it in a line; More adds to that in the reference, in Markdown.
	Usage, More string
	// Secret settings can also be in the file that Env + "_FILE" names.
	Secret bool

	set func(value string) error
}

// Flag returns the name of the setting's flag: CLOSEOUT_ADMIN_LISTEN is admin-listen.
func (s Setting) Flag() string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s.Env, "CLOSEOUT_"), "_", "-"))
}

// For reports whether a command uses the setting.
func (s Setting) For(command string) bool {
	return slices.Contains(strings.Split(s.UsedBy, ", "), command)
}

// Who uses a setting.
const (
	webhook   = "webhook"
	worker    = "worker"
	both      = webhook + ", " + worker
	setup     = "setup"
	codecs    = "codec"
	operators = "operator commands"
	everyone  = both + ", " + setup + ", " + codecs + ", " + operators
)

// Settings returns all settings except those of Temporal's client, which have Temporal's own names and files.
func Settings() []Setting { return (&Config{}).settings() }

// settings returns the settings, which set the fields of c.
func (c *Config) settings() []Setting {
	return []Setting{
		{Env: "CLOSEOUT_APPS", Secret: true, UsedBy: webhook + ", send", set: parse(&c.Apps, parseApps),
			Usage: "callback secrets, as appid=secret[,older-secret], separated by ';' (in a file: one per line)",
			More:  "Required by what receives callbacks. The secret is the project's *CallbackSecret*, not its ServerSecret. To rotate a secret, list the new one first and keep the old one until ZEGO signs with the new one. In a file, lines that begin with `#` are skipped."},
		{Env: "CLOSEOUT_LISTEN", Default: ":8080", UsedBy: webhook + ", send", set: address(&c.Listen),
			Usage: "address for callbacks",
			More:  "Only callbacks, and the endpoints of `Service.Hooks` below `/hooks/`, are served there. Terminate TLS in front of it, or set `CLOSEOUT_TLS_CERT`."},
		{Env: "CLOSEOUT_TLS_CERT", UsedBy: webhook + ", " + codecs, set: text(&c.TLSCert),
			Usage: "PEM file with the certificate for callbacks, and those between it and its root (default: no TLS)",
			More:  "Together with `CLOSEOUT_TLS_KEY`. A new connection reads the files again if that was five seconds ago, so replace them at any time; while they do not match, the old pair stays in use and the log says so. TLS 1.2 or later, HTTP/1.1."},
		{Env: "CLOSEOUT_TLS_KEY", UsedBy: webhook + ", " + codecs, set: text(&c.TLSKey),
			Usage: "PEM file with the key of that certificate"},
		{Env: "CLOSEOUT_ADMIN_LISTEN", Default: "127.0.0.1:9090", UsedBy: both + ", health, doctor", set: address(&c.AdminListen),
			Usage: "address for /livez, /readyz, /metrics and /debug/pprof; keep it private",
			More:  "Two processes on one machine need two addresses."},
		{Env: "CLOSEOUT_CALLBACK_TOKEN", Secret: true, UsedBy: webhook + ", send", set: token(&c.CallbackToken),
			Usage: "secret last segment of the callback's path: /zego/callbacks/<token>",
			More:  "A second lock, as ZEGO's signature does not cover the body. At least 8 letters, digits, `-` and `_`."},
		{Env: "CLOSEOUT_CALLBACK_WINDOW", Default: "10m", UsedBy: webhook, set: duration(&c.CallbackWindow, orZero(time.Second)),
			Usage: "maximum difference between a callback's timestamp and our clock; 0 accepts any",
			More:  "ZEGO retries for about 62 seconds; the rest is for clocks that are wrong."},
		{Env: "CLOSEOUT_IDLE_TIMEOUT", Default: "620s", UsedBy: webhook, set: duration(&c.IdleTimeout, atLeast(time.Second)),
			Usage: "how long a connection for callbacks may be idle",
			More:  "Longer than that of the load balancer in front, 60 seconds with most. Otherwise a callback is lost that arrives just when its connection is closed here."},
		{Env: "CLOSEOUT_DATA", Default: "./data", UsedBy: both + ", " + setup + ", " + operators, set: parse(&c.Data, filepath.Abs),
			Usage: "folder for everything embedded",
			More:  "A webhook needs a persistent folder of its own, as it holds the inbox. A second process on the same inbox is refused. A program of your own with a `Service.Name` has `./data/<name>` as the default."},
		{Env: "CLOSEOUT_DATABASE_URL", Secret: true, UsedBy: both + ", " + setup + ", " + operators,
			set:   schemes(&c.DatabaseURL, "postgres", "postgresql", "sqlite"),
			Usage: "the ledger, postgres://... or sqlite:/path (default: sqlite in the data folder)",
			More:  "One for all webhooks and workers: webhooks store participants' callbacks in it. `closeout setup` creates the tables, and can run at any time."},
		{Env: "CLOSEOUT_PARTICIPANTS", Default: "on", UsedBy: both, set: boolean(&c.Participants),
			Usage: "store room_create, room_login, room_logout and recording callbacks: on or off",
			More:  "The same for webhook and worker. If it is off, these callbacks are acknowledged and ignored, and bills have no participant time and say why. Refused genuine callbacks are then in the webhook's readiness and `closeout doctor` until it restarts, in metrics and the log; a second room_close that contradicts the first is only in metrics and the log."},
		{Env: "CLOSEOUT_RECORDINGS_URL", UsedBy: worker + ", " + setup, set: checked(&c.RecordingsURL, archive.CheckURL),
			Usage: "bucket that recordings are uploaded to, file://, s3://, or with a driver gs:// or azblob:// (default: a folder in the data folder)",
			More:  "See [the URLs](buckets.md#urls) and the [drivers](buckets.md#drivers). A session's recordings are those below `<appid>/<room_session_id>/`."},
		{Env: "CLOSEOUT_ARCHIVE_URL", UsedBy: worker + ", " + setup + ", " + operators, set: checked(&c.ArchiveURL, archive.CheckURL),
			Usage: "bucket that recordings are archived in (default: a folder in the data folder)",
			More:  "Another bucket or prefix than that of the recordings."},
		{Env: "CLOSEOUT_MAKE_BUCKETS", Default: "off", UsedBy: setup, set: boolean(&c.MakeBuckets),
			Usage: "create missing s3:// buckets: on or off",
			More:  "For development and stores of your own. An existing bucket is left alone."},
		{Env: "CLOSEOUT_ARCHIVE_TRANSFERS", Default: "4", UsedBy: worker, set: number(&c.ArchiveTransfers, 1, 64),
			Usage: "how many recordings a worker copies at a time",
			More:  "Whatever the number of sessions. Each needs about 11 MiB of memory. From 1 to 64."},
		{Env: "CLOSEOUT_ARCHIVE_CLASS", UsedBy: worker, set: text(&c.ArchiveClass),
			Usage: "storage class of archived recordings, as the archive's store calls it (default: that of the bucket)",
			More:  "Such as `STANDARD_IA` or `GLACIER_IR` of S3, `NEARLINE` of Google Cloud Storage, `Cool` of Azure. Manifests keep the bucket's class, as they are read again. See [recordings](buckets.md#options-of-the-archive)."},
		{Env: "CLOSEOUT_ARCHIVE_ENCRYPTION", UsedBy: worker, set: text(&c.ArchiveEncryption),
			Usage: "encryption of archived recordings, as the archive's store calls it (default: that of the bucket)",
			More:  "S3: `AES256`, `aws:kms` or `aws:kms:dsse`, optionally followed by `=` and a key's ID or ARN. Google Cloud Storage: the name of a Cloud KMS key. Azure: an encryption scope."},
		{Env: "CLOSEOUT_ARCHIVE_TAGS", UsedBy: worker, set: parse(&c.ArchiveTags, parseTags),
			Usage: "tags of archived objects, as name=value[,name=value] (default: none)",
			More:  "For S3 and Azure, where lifecycle rules can select by tags."},
		{Env: "CLOSEOUT_RECORDINGS_DELETE", Default: "off", UsedBy: worker, set: boolean(&c.DeleteRecordings),
			Usage: "delete recordings from their bucket once they are archived: on or off",
			More:  "Only what was verified in the archive and is listed in the manifest, after the manifest was read back, only if it is still what was archived, and only in a folder of its app: `<appid>/`, or a `CLOSEOUT_RECORDINGS_PREFIX` with `{{.appid}}/` in it."},
		{Env: "CLOSEOUT_RECORDINGS", Default: "none", UsedBy: worker, set: oneOf(&c.Recordings.Expected, "none", "callback", "bucket"),
			Usage: "how to know that a session's recordings are complete: none, callback or bucket",
			More:  "`none`: no recordings are expected, and what is in the session's folder is archived at once. `callback`: ZEGO's recording callback comes to the same address as the others. `bucket`: it does not, and Closeout watches the bucket. See [recordings](recordings.md)."},
		{Env: "CLOSEOUT_RECORDINGS_PREFIX", Default: recordings.DefaultPrefix, UsedBy: worker, set: parse(&c.Recordings.Prefix, recordings.ParsePrefix),
			Usage: "where a session's recordings are in their bucket, as a Go template of appid, room_id and room_session_id",
			More:  "In addition to the folder `<appid>/<room_session_id>/`. `/` is the whole bucket. Where the prefix does not name the session, file names as ZEGO makes them decide."},
		{Env: "CLOSEOUT_RECORDINGS_HOSTS", UsedBy: worker, set: parse(&c.RecordingsHosts, archive.ParseHosts),
			Usage: "hosts that files in ZEGO's backup storage may be read from, separated by commas (default: any with a public address)",
			More:  "As in `storage.example.com,*.example.net`: callbacks name these servers, and you choose which to trust. A loopback address in the list may also be read without TLS, to try Closeout on one machine. A file on another host blocks the step, which names the host."},
		{Env: "CLOSEOUT_RECORDINGS_GRACE", Default: "2m", UsedBy: worker, set: duration(&c.Recordings.Grace, anyDuration),
			Usage: "how long after the room's end to wait for the first sign of a recording",
			More:  "A session without one by then has no recording. With `bucket` it has to be longer than the longest upload."},
		{Env: "CLOSEOUT_RECORDINGS_STABLE", Default: "10m", UsedBy: worker, set: duration(&c.Recordings.Stable, anyDuration),
			Usage: "how long files without a callback must stay unchanged to be complete"},
		{Env: "CLOSEOUT_RECORDINGS_DEADLINE", Default: "72h", UsedBy: worker, set: duration(&c.Recordings.Deadline, between(time.Second, 336*time.Hour)),
			Usage: "how long to wait for missing recordings",
			More:  "Then the step is blocked, and says which are missing. ZEGO records for 48 hours at most, and keeps files it cannot upload in its backup storage for 72 hours. At most `336h`."},
		{Env: "CLOSEOUT_RECORDINGS_POLL", Default: "10s", UsedBy: worker, set: duration(&c.Recordings.Poll, between(time.Second, 15*time.Minute)),
			Usage: "first pause before Closeout looks again for missing recordings; it grows to 15m",
			More:  "A callback ends the pause."},
		{Env: "CLOSEOUT_BILLING_URL", UsedBy: worker, set: schemes(&c.BillingURL, "http", "https"),
			Usage: "HTTP API that bills are posted to (default: none)",
			More:  "Each bill, and each adjustment, is posted as a CloudEvents 1.0 event with an `Idempotency-Key`; see [bills](formats.md#billing-api). 2xx and 409 are done, 408 and 429 are retried, other 4xx block the step, and everything else is retried."},
		{Env: "CLOSEOUT_BILLING_TOKEN", Secret: true, UsedBy: worker, set: text(&c.BillingToken),
			Usage: "bearer token for that API"},
		{Env: "CLOSEOUT_PRICES", UsedBy: worker, set: parse(&c.Prices, parsePrices),
			Usage: "prices of a participant's minute, as appid=currency amount, or *=... for all other apps, separated by ';' (default: none, bills have no amount)",
			More:  "The amount is an integer of the currency's minor units: `*=EUR 2; 1234567890=EUR 3` is 2 cents, and 3 of one app. A session costs its minutes, which are rounded up once, times the price. A change is for new bills; an adjustment has the price of its bill. A program with a [price function](pricing.md) must not set it. See [bills](bills.md)."},
		{Env: "CLOSEOUT_MAX_BILL", Default: "1000000", UsedBy: worker, set: number(&c.MaxBill, 0, 1<<63-1),
			Usage: "largest bill made without an operator, in participant minutes; 0: no limit",
			More:  "A larger bill, or an adjustment that makes it larger, blocks the step `billing`, which says how large it is; an operator approves it by retrying the step. A million minutes are 350 people for two days. See [bills](bills.md#approval)."},
		{Env: "CLOSEOUT_MAX_ROOM_LIFE", Default: "168h", UsedBy: both, set: duration(&c.MaxRoomLife, orZero(time.Hour)),
			Usage: "maximum life of a room, and of a stay in it; 0: no limit",
			More:  "Times further back from when ZEGO sent the callback are not used: see [bills](bills.md#implausible-times). At least `1h`, as a callback may be late. The same for webhook and worker."},
		{Env: "CLOSEOUT_SETTLING", Default: "90s", UsedBy: both + ", repair", set: duration(&c.Settling, anyDuration),
			Usage: "how long after its room_close a run starts, so that callbacks ZEGO is still retrying are included",
			More:  "ZEGO retries a callback for 62 seconds. A later one makes an adjustment. A run keeps the value it was started with. Your own Workflows can [start at once](steps.md#when-a-run-starts)."},
		{Env: "CLOSEOUT_MISSING_WAIT", Default: "5m", UsedBy: worker, set: duration(&c.MissingWait, between(0, 24*time.Hour)),
			Usage: "how long a bill waits for callbacks that are missing by their numbers",
			More:  "Then it is made as an estimate, and states how many are missing. Those that come later make an adjustment. `0` does not wait. At most `24h`. See [bills](bills.md#missing-callbacks)."},
		{Env: "CLOSEOUT_EXCLUDE", Default: "role=auto", UsedBy: worker + ", " + operators, set: parse(&c.Exclude, metering.ParseRules),
			Usage: "who in a room is no participant: rules, separated by commas, or none",
			More:  "`role=auto`, `role=<number>` or `user=<pattern>`, where `*` stands for any text, with `<appid>:` in front for one app: `role=auto,user=bot-*,1234567890:role=4`. See [bills](bills.md#who-counts)."},
		{Env: "CLOSEOUT_SERVER_SECRETS", Secret: true, UsedBy: worker, set: parse(&c.ServerSecrets, parseApps),
			Usage: "server secrets of apps, appid=secret, separated by ';' or line ends (default: none, overdue sessions are only reported)",
			More:  "The ServerSecret of the ZEGO console, not the CallbackSecret: Closeout asks ZEGO's server API about sessions whose `room_close` is overdue. To rotate a secret, put the other one behind a comma. See [reconciliation](reconciliation.md)."},
		{Env: "CLOSEOUT_SERVER_API_URL", Default: serverapi.DefaultURL, UsedBy: worker, set: checked(&c.ServerAPI, checkServerAPI),
			Usage: "ZEGO's server API",
			More:  "One of ZEGO's regions is `https://rtc-api-fra.zego.im`, for instance. It must be https, except on this machine."},
		{Env: "CLOSEOUT_RECORDING_API_URL", Default: serverapi.RecordingURL, UsedBy: worker, set: checked(&c.RecordingAPI, checkServerAPI),
			Usage: "ZEGO's API of the cloud recording",
			More:  "One of ZEGO's regions is `https://cloudrecord-api-fra.zego.im`, for instance. With an app's server secret and `CLOSEOUT_RECORDINGS` other than `none`, Closeout asks it about [recordings without a callback](recordings.md#lost-callbacks)."},
		{Env: "CLOSEOUT_ANALYTICS_API_URL", Default: serverapi.AnalyticsURL, UsedBy: worker, set: checked(&c.AnalyticsAPI, checkServerAPI),
			Usage: "ZEGO's API of the analytics",
			More:  "With an app's server secret, and `CLOSEOUT_PARTICIPANTS` other than `off`, Closeout asks it every ten minutes how many [rooms and users](reconciliation.md#sessions-without-a-single-callback) there were."},
		{Env: "CLOSEOUT_TEST_APPS", UsedBy: worker, set: parse(&c.TestApps, parseAppIDs),
			Usage: "appids in ZEGO's test environment, separated by ';' (default: none)",
			More:  "Projects made up to 2021-11-16 have one. Calls for these apps say `IsTest=true` and keep its lower limit: one `DescribeUserNum` a second."},
		{Env: "CLOSEOUT_OVERDUE_AFTER", Default: "10m", UsedBy: worker + ", " + operators, set: duration(&c.OverdueAfter, anyDuration),
			Usage: "how long a session may be silent before Closeout asks ZEGO about it",
			More:  "Counted from the last callback about its users, or the last answer that a user is in it. Less than `3m` asks too early: who loses the connection stays in the room for 100 s, and ZEGO retries a callback for 62 s."},
		{Env: "CLOSEOUT_RECONCILE_INTERVAL", Default: "1m", UsedBy: worker, set: duration(&c.ReconcileEvery, orZero(time.Second)),
			Usage: "how often to check overdue sessions, adjust bills and add late recordings; 0: never",
			More:  "One of the workers checks whether anything is due, and starts a run only then. ZEGO is asked about a session at most every minute."},
		{Env: "CLOSEOUT_TASK_QUEUE", Default: "closeout", UsedBy: both + ", " + setup + ", repair", set: text(&c.TaskQueue),
			Usage: "Temporal Task Queue",
			More:  "The same for webhook and worker. A program of your own has its `Service.Name` as the default."},
		{Env: "TEMPORAL_DEPLOYMENT_NAME", UsedBy: worker, set: checked(&c.DeploymentName, checkDeployment),
			Usage: "Worker Deployment of the worker, whose runs are pinned to their version (default: none, no Worker Versioning)",
			More:  "Without `.` and `:`. Together with `TEMPORAL_WORKER_BUILD_ID`; Temporal's Worker Controller sets both. See [changing workflows](changing-workflows.md)."},
		{Env: "TEMPORAL_WORKER_BUILD_ID", UsedBy: worker, set: text(&c.BuildID),
			Usage: "the worker's version in that deployment"},
		{Env: "CLOSEOUT_APP_WEIGHTS", UsedBy: both + ", repair", set: parse(&c.AppWeights, parseWeights),
			Usage: "shares of apps in the workers, as appid=weight, separated by ';' (default: the same for all)",
			More:  "From 0.001 to 1000, and 1 for an app that is not listed. They count while runs of several apps wait for a worker, if Temporal's Task Queues are fair: see [Temporal](temporal.md#fairness-between-apps)."},
		{Env: "CLOSEOUT_PAYLOAD_KEYS", Secret: true, UsedBy: both + ", " + codecs + ", " + operators, set: parse(&c.PayloadKeys, codec.ParseKeys),
			Usage: "keys that encrypt what Temporal stores, as name=key, separated by ';' (in a file: one per line; default: none, nothing is encrypted)",
			More:  "A key is 32 bytes in base64. The first one encrypts, and all decrypt. The same everywhere; read at the start. See [encryption](temporal.md#encryption)."},
		{Env: "CLOSEOUT_CODEC_LISTEN", Default: "127.0.0.1:8081", UsedBy: codecs, set: address(&c.CodecListen),
			Usage: "address of `closeout codec`, which decrypts for Temporal's Web UI and command line",
			More:  "Whoever reaches it can read everything, unless `CLOSEOUT_CODEC_TOKEN` is set, which any other address than the loopback requires."},
		{Env: "CLOSEOUT_CODEC_TOKEN", Secret: true, UsedBy: codecs, set: token(&c.CodecToken),
			Usage: "bearer token that callers of `closeout codec` must send (default: none)"},
		{Env: "CLOSEOUT_RETENTION", Default: "720h", UsedBy: setup, set: duration(&c.Retention, atLeast(24*time.Hour)),
			Usage: "how long a Namespace that setup creates keeps closed runs",
			More:  "At least `24h`, which is Temporal's minimum. A Workflow ID is refused a second time for as long as its run is kept."},
		{Env: "CLOSEOUT_UI_URL", Default: "http://localhost:8233", UsedBy: codecs + ", " + operators, set: schemes(&c.UIURL, "http", "https"),
			Usage: "address of Temporal's Web UI",
			More:  "`closeout status` links to it, and `closeout codec` lets its pages call. That of Temporal Cloud is `https://cloud.temporal.io`."},
		{Env: "CLOSEOUT_STOP_TIMEOUT", Default: "10s", UsedBy: both + ", " + codecs, set: duration(&c.StopTimeout, anyDuration),
			Usage: "how long a stop waits for work in progress",
			More:  "First for callbacks that are being answered, then for steps."},
		{Env: "CLOSEOUT_DRAIN_TIMEOUT", Default: "10s", UsedBy: webhook, set: duration(&c.DrainTimeout, anyDuration),
			Usage: "how long a stop keeps delivering what is in the inbox",
			More:  "Once no more callbacks come in, and not while the sink is unavailable. What is left stays on disk, and the next start on the same folder delivers it."},
		{Env: "CLOSEOUT_LOG_LEVEL", Default: "info", UsedBy: everyone, set: func(v string) error {
			if c.LogLevel.UnmarshalText([]byte(v)) != nil {
				return found(v, "debug, info, warn or error")
			}
			return nil
		}, Usage: "lowest level to log: debug, info, warn or error"},
		{Env: "CLOSEOUT_LOG_FORMAT", Default: "text", UsedBy: everyone, set: oneOf(&c.LogFormat, "text", "json"),
			Usage: "text or json"},
	}
}

func checkServerAPI(v string) error {
	if _, err := serverapi.New(v, nil); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "zego: "))
	}
	return nil
}
