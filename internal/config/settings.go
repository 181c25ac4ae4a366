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
	// UsedBy lists the commands that use it. All operator commands are one of them.
	UsedBy string
	// Usage describes it in a line. More follows it in the reference, in Markdown.
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

// The values of [Setting.UsedBy].
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
			More:  "Required for commands that receive callbacks. The secret is the project's *CallbackSecret*, not its ServerSecret. To rotate a secret, list the new one first and keep the old one until ZEGO signs with the new one. In a file, lines that begin with `#` are skipped."},
		{Env: "CLOSEOUT_LISTEN", Default: ":8080", UsedBy: webhook + ", send", set: address(&c.Listen),
			Usage: "address for callbacks",
			More:  "Only callbacks, and the endpoints of `Service.Hooks` below `/hooks/`, are served there. Terminate TLS in front of it, or set `CLOSEOUT_TLS_CERT`."},
		{Env: "CLOSEOUT_TLS_CERT", UsedBy: webhook + ", " + codecs, set: text(&c.TLSCert),
			Usage: "PEM file with the certificate for callbacks and its intermediate certificates (default: no TLS)",
			More:  "Set it together with `CLOSEOUT_TLS_KEY`. You can replace the files at any time: new connections read them again, at most every five seconds. While certificate and key do not match, the old pair stays in use, and the log says so. TLS 1.2 or later, HTTP/1.1."},
		{Env: "CLOSEOUT_TLS_KEY", UsedBy: webhook + ", " + codecs, set: text(&c.TLSKey),
			Usage: "PEM file with the key of that certificate"},
		{Env: "CLOSEOUT_ADMIN_LISTEN", Default: "127.0.0.1:9090", UsedBy: both + ", health, doctor", set: address(&c.AdminListen),
			Usage: "address for /livez, /readyz, /metrics and /debug/pprof; keep it private",
			More:  "Two processes on one machine need different addresses."},
		{Env: "CLOSEOUT_CALLBACK_TOKEN", Secret: true, UsedBy: webhook + ", send", set: token(&c.CallbackToken),
			Usage: "secret last segment of the callback's path: /zego/callbacks/<token>",
			More:  "It is a second lock, because ZEGO's signature does not cover the body. At least 8 letters, digits, `-` and `_`."},
		{Env: "CLOSEOUT_CALLBACK_WINDOW", Default: "10m", UsedBy: webhook, set: duration(&c.CallbackWindow, bounds{min: time.Second, zero: true}),
			Usage: "maximum difference between a callback's timestamp and our clock; 0 accepts any",
			More:  "ZEGO retries for about 62 seconds; the rest allows for wrong clocks."},
		{Env: "CLOSEOUT_IDLE_TIMEOUT", Default: "620s", UsedBy: webhook, set: duration(&c.IdleTimeout, bounds{min: time.Second}),
			Usage: "how long a connection for callbacks may be idle",
			More:  "Set it longer than the load balancer's timeout, which is usually 60 seconds. Otherwise a callback is lost if it arrives just when Closeout closes its connection."},
		{Env: "CLOSEOUT_DATA", Default: "./data", UsedBy: both + ", " + setup + ", " + operators, set: parse(&c.Data, filepath.Abs),
			Usage: "folder for the inbox and the embedded stores",
			More:  "A webhook needs a persistent folder of its own, because the inbox is in it. A second process on the same inbox is refused. A program of your own with a `Service.Name` has `./data/<name>` as the default."},
		{Env: "CLOSEOUT_DATABASE_URL", Secret: true, UsedBy: both + ", " + setup + ", " + operators,
			set:   schemes(&c.DatabaseURL, "postgres", "postgresql", "sqlite"),
			Usage: "the ledger, postgres://... or sqlite:/path (default: sqlite in the data folder)",
			More:  "All webhooks and workers share one, because webhooks store participants' callbacks in it. `closeout setup` creates the tables, and can run at any time."},
		{Env: "CLOSEOUT_PARTICIPANTS", Default: "on", UsedBy: both, set: boolean(&c.Participants),
			Usage: "store room_create, room_login, room_logout and recording callbacks: on or off",
			More:  "Set the same for webhook and worker. If it is off, these callbacks are acknowledged and ignored, and bills have no participant time and say why. Then metrics and log report a refused genuine callback, and so do the webhook's readiness and `closeout doctor` until the webhook restarts. Only metrics and log report a second room_close that contradicts the first."},
		{Env: "CLOSEOUT_RECORDINGS_URL", UsedBy: worker + ", " + setup, set: checked(&c.RecordingsURL, archive.CheckURL),
			Usage: "bucket to which ZEGO uploads recordings, file://, s3://, or with a driver gs:// or azblob:// (default: a folder in the data folder)",
			More:  "See [the URLs](buckets.md#urls) and the [drivers](buckets.md#drivers). A session's recordings are below `<appid>/<room_session_id>/`."},
		{Env: "CLOSEOUT_ARCHIVE_URL", UsedBy: worker + ", " + setup + ", " + operators, set: checked(&c.ArchiveURL, archive.CheckURL),
			Usage: "bucket for archived recordings (default: a folder in the data folder)",
			More:  "Use another bucket or prefix than for the recordings."},
		{Env: "CLOSEOUT_MAKE_BUCKETS", Default: "off", UsedBy: setup, set: boolean(&c.MakeBuckets),
			Usage: "create missing s3:// buckets: on or off",
			More:  "This is for development, and for stores of your own. Existing buckets stay unchanged."},
		{Env: "CLOSEOUT_ARCHIVE_TRANSFERS", Default: "4", UsedBy: worker, set: number(&c.ArchiveTransfers, 1, 64),
			Usage: "how many recordings a worker copies at a time",
			More:  "The limit holds for all sessions together. Each copy needs about 11 MiB of memory. From 1 to 64."},
		{Env: "CLOSEOUT_ARCHIVE_CLASS", UsedBy: worker, set: text(&c.ArchiveClass),
			Usage: "storage class of archived recordings, as the archive's store calls it (default: that of the bucket)",
			More:  "Examples are `STANDARD_IA` and `GLACIER_IR` of S3, `NEARLINE` of Google Cloud Storage, `Cool` of Azure. Manifests have the bucket's default class, because they are read again. See [buckets](buckets.md#options-of-the-archive)."},
		{Env: "CLOSEOUT_ARCHIVE_ENCRYPTION", UsedBy: worker, set: text(&c.ArchiveEncryption),
			Usage: "encryption of archived recordings, as the archive's store calls it (default: that of the bucket)",
			More:  "S3: `AES256`, `aws:kms` or `aws:kms:dsse`, optionally followed by `=` and a key's ID or ARN. Google Cloud Storage: the name of a Cloud KMS key. Azure: an encryption scope."},
		{Env: "CLOSEOUT_ARCHIVE_TAGS", UsedBy: worker, set: parse(&c.ArchiveTags, parseTags),
			Usage: "tags of archived objects, as name=value[,name=value] (default: none)",
			More:  "S3 and Azure support them, and their lifecycle rules can select by tags."},
		{Env: "CLOSEOUT_RECORDINGS_DELETE", Default: "off", UsedBy: worker, set: boolean(&c.DeleteRecordings),
			Usage: "delete recordings from their bucket once they are archived: on or off",
			More:  "Closeout deletes a recording only if its copy was verified, the manifest lists it and was read back, and the recording has not changed since. It deletes only in a folder of its app: `<appid>/`, or a `CLOSEOUT_RECORDINGS_PREFIX` with `{{.appid}}/` in it."},
		{Env: "CLOSEOUT_RECORDINGS", Default: "none", UsedBy: worker, set: oneOf(&c.Recordings.Expected, "none", "callback", "bucket"),
			Usage: "how to know that a session's recordings are complete: none, callback or bucket",
			More:  "`none`: no recordings are expected, and the files in the session's folder are archived at once. `callback`: ZEGO sends recording callbacks to the same address as the others. `bucket`: there are no recording callbacks, and Closeout watches the bucket. See [recordings](recordings.md)."},
		{Env: "CLOSEOUT_RECORDINGS_PREFIX", Default: recordings.DefaultPrefix, UsedBy: worker, set: parse(&c.Recordings.Prefix, recordings.ParsePrefix),
			Usage: "where a session's recordings are in their bucket, as a Go template of appid, room_id and room_session_id",
			More:  "Closeout also looks in the folder `<appid>/<room_session_id>/`. `/` is the whole bucket. If the prefix does not name the session, ZEGO's file names decide."},
		{Env: "CLOSEOUT_RECORDINGS_HOSTS", UsedBy: worker, set: parse(&c.RecordingsHosts, archive.ParseHosts),
			Usage: "allowed hosts of files in ZEGO's backup storage, separated by commas (default: any with a public address)",
			More:  "An example is `storage.example.com,*.example.net`. Callbacks name these servers, and you choose which to trust. A loopback address in the list may be read without TLS, for trials on one machine. A file on another host blocks the step, and the failure names the host."},
		{Env: "CLOSEOUT_RECORDINGS_GRACE", Default: "2m", UsedBy: worker, set: duration(&c.Recordings.Grace, bounds{}),
			Usage: "how long after the room's end to wait for the first sign of a recording",
			More:  "A session without a sign by then has no recording. With `bucket`, set it longer than the longest upload."},
		{Env: "CLOSEOUT_RECORDINGS_STABLE", Default: "10m", UsedBy: worker, set: duration(&c.Recordings.Stable, bounds{}),
			Usage: "how long files without a callback must stay unchanged to be complete"},
		{Env: "CLOSEOUT_RECORDINGS_DEADLINE", Default: "72h", UsedBy: worker, set: duration(&c.Recordings.Deadline, bounds{min: time.Second, max: 336 * time.Hour}),
			Usage: "how long to wait for missing recordings",
			More:  "Then the step is blocked, and names the missing recordings. ZEGO records for 48 hours at most, and keeps files it cannot upload in its backup storage for 72 hours. At most `336h`."},
		{Env: "CLOSEOUT_RECORDINGS_POLL", Default: "10s", UsedBy: worker, set: duration(&c.Recordings.Poll, bounds{min: time.Second, max: 15 * time.Minute}),
			Usage: "first pause before Closeout looks again for missing recordings; it grows to 15m",
			More:  "A callback ends the pause."},
		{Env: "CLOSEOUT_BILLING_URL", UsedBy: worker, set: schemes(&c.BillingURL, "http", "https"),
			Usage: "HTTP API to which bills are posted (default: none)",
			More:  "Each bill, and each adjustment, is posted as a CloudEvents 1.0 event with an `Idempotency-Key`; see [bills](formats.md#billing-api). 2xx and 409 are done, 408 and 429 are retried, other 4xx block the step, and everything else is retried."},
		{Env: "CLOSEOUT_BILLING_TOKEN", Secret: true, UsedBy: worker, set: text(&c.BillingToken),
			Usage: "bearer token for that API"},
		{Env: "CLOSEOUT_PRICES", UsedBy: worker, set: parse(&c.Prices, parsePrices),
			Usage: "prices of a participant minute, as appid=currency amount, or *=... for all other apps, separated by ';' (default: none, bills have no amount)",
			More:  "The amount is an integer of the currency's minor units: `*=EUR 2; 1234567890=EUR 3` is 3 cents for one app, and 2 cents for all others. A session costs its minutes, rounded up once, times the price. A changed price applies to new bills; an adjustment has the price of its bill. A program with a [price function](pricing.md) must not set it. See [bills](bills.md)."},
		{Env: "CLOSEOUT_MAX_BILL", Default: "1000000", UsedBy: worker, set: number(&c.MaxBill, 0, 1<<63-1),
			Usage: "largest bill made without an operator, in participant minutes; 0: no limit",
			More:  "A larger bill, or an adjustment that makes a bill larger, blocks the step `billing`. The failure says how large the bill is. An operator approves it by retrying the step. A million minutes are 350 people for two days. See [bills](bills.md#approval)."},
		{Env: "CLOSEOUT_MAX_ROOM_LIFE", Default: "168h", UsedBy: both, set: duration(&c.MaxRoomLife, bounds{min: time.Hour, zero: true}),
			Usage: "maximum life of a room, and of a stay in it; 0: no limit",
			More:  "Times that are further back from the time at which ZEGO sent the callback are implausible: see [bills](bills.md#implausible-times). At least `1h`, because a callback may be late. Set the same for webhook and worker."},
		{Env: "CLOSEOUT_SETTLING", Default: "90s", UsedBy: both + ", repair", set: duration(&c.Settling, bounds{}),
			Usage: "delay of a run after its room_close, so that callbacks ZEGO is still retrying are included",
			More:  "ZEGO retries a callback for 62 seconds. A later one makes an adjustment. A changed value applies to runs that start later. Your own Workflows can [start at once](steps.md#when-a-run-starts)."},
		{Env: "CLOSEOUT_MISSING_WAIT", Default: "5m", UsedBy: worker, set: duration(&c.MissingWait, bounds{max: 24 * time.Hour}),
			Usage: "how long a bill waits for callbacks that are missing by their numbers",
			More:  "Then the bill is an estimate, and states how many are missing. Callbacks that come later make an adjustment. With `0`, the bill does not wait. At most `24h`. See [bills](bills.md#missing-callbacks)."},
		{Env: "CLOSEOUT_EXCLUDE", Default: "role=auto", UsedBy: worker + ", " + operators, set: parse(&c.Exclude, metering.ParseRules),
			Usage: "users who are not participants: rules, separated by commas, or none",
			More:  "`role=auto`, `role=<number>` or `user=<pattern>`, where `*` stands for any text, with `<appid>:` in front for one app: `role=auto,user=bot-*,1234567890:role=4`. See [bills](bills.md#who-counts)."},
		{Env: "CLOSEOUT_SERVER_SECRETS", Secret: true, UsedBy: worker, set: parse(&c.ServerSecrets, parseApps),
			Usage: "server secrets of apps, appid=secret, separated by ';' or line ends (default: none, overdue sessions are only reported)",
			More:  "The ServerSecret of the ZEGO console, not the CallbackSecret: Closeout asks ZEGO's server API about sessions whose `room_close` is overdue. To rotate a secret, add the other one after a comma. See [reconciliation](reconciliation.md)."},
		{Env: "CLOSEOUT_SERVER_API_URL", Default: serverapi.DefaultURL, UsedBy: worker, set: checked(&c.ServerAPI, checkServerAPI),
			Usage: "ZEGO's server API",
			More:  "An example of a region's API is `https://rtc-api-fra.zego.im`. The URL must be https, except on this machine."},
		{Env: "CLOSEOUT_RECORDING_API_URL", Default: serverapi.RecordingURL, UsedBy: worker, set: checked(&c.RecordingAPI, checkServerAPI),
			Usage: "ZEGO's cloud recording API",
			More:  "An example of a region's API is `https://cloudrecord-api-fra.zego.im`. With an app's server secret and `CLOSEOUT_RECORDINGS` other than `none`, Closeout asks it about [recordings without a callback](recordings.md#lost-callbacks)."},
		{Env: "CLOSEOUT_ANALYTICS_API_URL", Default: serverapi.AnalyticsURL, UsedBy: worker, set: checked(&c.AnalyticsAPI, checkServerAPI),
			Usage: "ZEGO's analytics API",
			More:  "With an app's server secret, and `CLOSEOUT_PARTICIPANTS` other than `off`, Closeout asks it every ten minutes how many [rooms and users](reconciliation.md#sessions-without-a-single-callback) there were."},
		{Env: "CLOSEOUT_TEST_APPS", UsedBy: worker, set: parse(&c.TestApps, parseAppIDs),
			Usage: "appids in ZEGO's test environment, separated by ';' (default: none)",
			More:  "Projects created until 2021-11-16 have one. Calls for these apps set `IsTest=true` and keep to its lower limit: one `DescribeUserNum` a second."},
		{Env: "CLOSEOUT_OVERDUE_AFTER", Default: "10m", UsedBy: worker + ", " + operators, set: duration(&c.OverdueAfter, bounds{}),
			Usage: "how long a session may be silent before Closeout asks ZEGO about it",
			More:  "The time counts from the last callback about its users, or the last answer that a user is in the room. Less than `3m` is too short: a user without a connection stays in the room for 100 s, and ZEGO retries a callback for 62 s."},
		{Env: "CLOSEOUT_RECONCILE_INTERVAL", Default: "1m", UsedBy: worker, set: duration(&c.ReconcileEvery, bounds{min: time.Second, zero: true}),
			Usage: "how often to check overdue sessions, adjust bills and add late recordings; 0: never",
			More:  "One of the workers checks, and starts a run only if anything is due. It asks ZEGO about a session at most once a minute."},
		{Env: "CLOSEOUT_TASK_QUEUE", Default: "closeout", UsedBy: both + ", " + setup + ", repair", set: text(&c.TaskQueue),
			Usage: "Temporal Task Queue",
			More:  "Set the same for webhook and worker. A program of your own has its `Service.Name` as the default."},
		{Env: "TEMPORAL_DEPLOYMENT_NAME", UsedBy: worker, set: checked(&c.DeploymentName, checkDeployment),
			Usage: "Worker Deployment of the worker; its runs are pinned to their version (default: none, no Worker Versioning)",
			More:  "The name has no `.` and no `:`. Set it together with `TEMPORAL_WORKER_BUILD_ID`; Temporal's Worker Controller sets both. See [changing Workflows](changing-workflows.md)."},
		{Env: "TEMPORAL_WORKER_BUILD_ID", UsedBy: worker, set: text(&c.BuildID),
			Usage: "the worker's version in that deployment"},
		{Env: "CLOSEOUT_APP_WEIGHTS", UsedBy: both + ", repair", set: parse(&c.AppWeights, parseWeights),
			Usage: "shares of apps in the workers, as appid=weight, separated by ';' (default: the same for all)",
			More:  "From 0.001 to 1000; an app that is not listed has 1. Weights matter while runs of several apps wait for a worker, if Temporal's Task Queues are fair: see [Temporal](temporal.md#fairness-between-apps)."},
		{Env: "CLOSEOUT_PAYLOAD_KEYS", Secret: true, UsedBy: both + ", " + codecs + ", " + operators, set: parse(&c.PayloadKeys, codec.ParseKeys),
			Usage: "keys that encrypt what Temporal stores, as name=key, separated by ';' (in a file: one per line; default: none, nothing is encrypted)",
			More:  "A key is 32 bytes in base64. The first key encrypts, and all keys decrypt. Set the same for all processes, and restart them after a change. See [encryption](temporal.md#encryption)."},
		{Env: "CLOSEOUT_CODEC_LISTEN", Default: "127.0.0.1:8081", UsedBy: codecs, set: address(&c.CodecListen),
			Usage: "address of `closeout codec`, which decrypts for Temporal's Web UI and command line",
			More:  "Every client that reaches it can decrypt everything. So any other address than the loopback requires `CLOSEOUT_CODEC_TOKEN`."},
		{Env: "CLOSEOUT_CODEC_TOKEN", Secret: true, UsedBy: codecs, set: token(&c.CodecToken),
			Usage: "bearer token that callers of `closeout codec` must send (default: none)"},
		{Env: "CLOSEOUT_RETENTION", Default: "720h", UsedBy: setup, set: duration(&c.Retention, bounds{min: 24 * time.Hour}),
			Usage: "how long a Namespace that setup creates keeps closed runs",
			More:  "At least `24h`, which is Temporal's minimum. Temporal refuses a second run of a Workflow ID for as long as it keeps the first."},
		{Env: "CLOSEOUT_UI_URL", Default: "http://localhost:8233", UsedBy: codecs + ", " + operators, set: schemes(&c.UIURL, "http", "https"),
			Usage: "address of Temporal's Web UI",
			More:  "`closeout status` links to it, and `closeout codec` allows requests from its pages. Temporal Cloud's is `https://cloud.temporal.io`."},
		{Env: "CLOSEOUT_STOP_TIMEOUT", Default: "10s", UsedBy: both + ", " + codecs, set: duration(&c.StopTimeout, bounds{}),
			Usage: "how long a stop waits for work in progress",
			More:  "It applies first to callbacks that are being answered, then to steps."},
		{Env: "CLOSEOUT_DRAIN_TIMEOUT", Default: "10s", UsedBy: webhook, set: duration(&c.DrainTimeout, bounds{}),
			Usage: "how long a stop keeps delivering callbacks from the inbox",
			More:  "Delivery begins when no more callbacks are accepted, and ends early if the sink is unavailable. The other callbacks stay on disk, and the next start on the same folder delivers them."},
		{Env: "CLOSEOUT_LOG_LEVEL", Default: "info", UsedBy: everyone, set: func(v string) error {
			if c.LogLevel.UnmarshalText([]byte(v)) != nil {
				return found(v, "debug, info, warn or error")
			}
			return nil
		}, Usage: "lowest level to log: debug, info, warn or error"},
		{Env: "CLOSEOUT_LOG_FORMAT", Default: "text", UsedBy: everyone, set: oneOf(&c.LogFormat, "text", "json"),
			Usage: "format of the log: text or json"},
	}
}

func checkServerAPI(v string) error {
	if _, err := serverapi.New(v, nil); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "zego: "))
	}
	return nil
}
