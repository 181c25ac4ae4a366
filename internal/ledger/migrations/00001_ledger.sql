-- The ledger, for SQLite and PostgreSQL alike.
--
-- room_session_id uses all 64 bits of an unsigned integer. Neither database has such a type, so it
-- is decimal text. Times are Unix milliseconds, and 0 means unknown. Those of users, rooms and
-- recordings are by ZEGO's clock, others by ours. There are few indexes, because each slows down
-- every callback.
CREATE TABLE bills (
    id                  TEXT   NOT NULL PRIMARY KEY,
    appid               BIGINT NOT NULL,
    room_id             TEXT   NOT NULL,
    room_session_id     TEXT   NOT NULL,
    close_reason        TEXT   NOT NULL,
    room_close_time     BIGINT NOT NULL,
    made_at             BIGINT NOT NULL,
    reconciled          BIGINT NOT NULL,
    start_time          BIGINT NOT NULL,
    start_from          TEXT   NOT NULL,
    end_time            BIGINT NOT NULL,
    end_from            TEXT   NOT NULL,
    participants        BIGINT NOT NULL,
    stays               BIGINT NOT NULL,
    participant_ms      BIGINT NOT NULL,
    participant_seconds BIGINT NOT NULL,
    participant_minutes BIGINT NOT NULL,
    estimated           TEXT   NOT NULL,
    published_ms        BIGINT NOT NULL,
    published_seconds   BIGINT NOT NULL,
    published_estimated TEXT   NOT NULL,
    callbacks           BIGINT NOT NULL, -- number of missing callbacks about users; -1: unknown
    stream_callbacks    BIGINT NOT NULL, -- number of missing callbacks about streams; -1: unknown
    excluded            TEXT   NOT NULL, -- users who are not participants, with reasons
    currency            TEXT   NOT NULL,
    price_per_minute    BIGINT NOT NULL,
    by_function         BIGINT NOT NULL, -- 1: a price function priced it
    amount              BIGINT NOT NULL,
    lines               BIGINT NOT NULL
);

CREATE UNIQUE INDEX bills_session ON bills (appid, room_session_id);
CREATE INDEX bills_closed ON bills (room_close_time);

-- Adjustments of bills. The figures are those of the session at that time. billed_... has the
-- differences to the entry before, which may be negative.
CREATE TABLE adjustments (
    id                  TEXT   NOT NULL PRIMARY KEY,
    bill_id             TEXT   NOT NULL,
    number              BIGINT NOT NULL, -- counts the session's adjustments from 1
    appid               BIGINT NOT NULL,
    room_id             TEXT   NOT NULL,
    room_session_id     TEXT   NOT NULL,
    close_reason        TEXT   NOT NULL,
    room_close_time     BIGINT NOT NULL,
    made_at             BIGINT NOT NULL,
    reconciled          BIGINT NOT NULL,
    start_time          BIGINT NOT NULL,
    start_from          TEXT   NOT NULL,
    end_time            BIGINT NOT NULL,
    end_from            TEXT   NOT NULL,
    participants        BIGINT NOT NULL,
    stays               BIGINT NOT NULL,
    participant_ms      BIGINT NOT NULL,
    participant_seconds BIGINT NOT NULL,
    participant_minutes BIGINT NOT NULL,
    estimated           TEXT   NOT NULL,
    published_ms        BIGINT NOT NULL,
    published_seconds   BIGINT NOT NULL,
    published_estimated TEXT   NOT NULL,
    callbacks           BIGINT NOT NULL, -- number of missing callbacks about users; -1: unknown
    stream_callbacks    BIGINT NOT NULL, -- number of missing callbacks about streams; -1: unknown
    excluded            TEXT   NOT NULL, -- users who are not participants, with reasons
    currency            TEXT   NOT NULL,
    price_per_minute    BIGINT NOT NULL,
    by_function         BIGINT NOT NULL,
    amount              BIGINT NOT NULL,
    lines               BIGINT NOT NULL,
    billed_ms           BIGINT NOT NULL,
    billed_seconds      BIGINT NOT NULL,
    billed_minutes      BIGINT NOT NULL,
    billed_amount       BIGINT NOT NULL,
    billed_lines        BIGINT NOT NULL
);

CREATE UNIQUE INDEX adjustments_number ON adjustments (appid, room_session_id, number);
CREATE INDEX adjustments_closed ON adjustments (room_close_time);

-- Lines of bills and adjustments. The lines of an entry add up to its amount.
CREATE TABLE lines (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    entry           BIGINT NOT NULL, -- 0: the bill; else the number of the adjustment
    line            BIGINT NOT NULL, -- from 1
    payer           TEXT   NOT NULL,
    payee           TEXT   NOT NULL,
    description     TEXT   NOT NULL,
    quantity        BIGINT NOT NULL,
    unit            TEXT   NOT NULL,
    unit_price      BIGINT NOT NULL,
    amount          BIGINT NOT NULL,
    currency        TEXT   NOT NULL,
    PRIMARY KEY (appid, room_session_id, entry, line)
);

-- Sessions, from callbacks.
CREATE TABLE sessions (
    appid            BIGINT NOT NULL,
    room_session_id  TEXT   NOT NULL,
    room_id          TEXT   NOT NULL,
    room_create_time BIGINT NOT NULL,
    contradicted     BIGINT NOT NULL, -- 1: callbacks contradict each other
    implausible      BIGINT NOT NULL, -- 1: a callback has an impossible time
    seen_at          BIGINT NOT NULL, -- when the last callback arrived, or the last answer that a user is in the room
    closed_at        BIGINT NOT NULL, -- when the end of the session was recorded; 0: it is open
    entries          BIGINT NOT NULL, -- number of entries: the bill and its adjustments
    dirty_at         BIGINT NOT NULL, -- when an event arrived that the last entry lacks; 0: none
    adjusting_at     BIGINT NOT NULL DEFAULT 0, -- when the run of the next adjustment was started
    PRIMARY KEY (appid, room_session_id)
);

CREATE INDEX sessions_open ON sessions (seen_at, appid, room_session_id) WHERE closed_at = 0;
CREATE INDEX sessions_dirty ON sessions (dirty_at) WHERE dirty_at <> 0;

CREATE TABLE stays (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    stay            TEXT   NOT NULL, -- ZEGO's session_id
    user_account    TEXT   NOT NULL,
    user_role       TEXT   NOT NULL,
    role_at         BIGINT NOT NULL, -- time of the logout with the role; 0: the role is from a login
    login_time      BIGINT NOT NULL,
    logout_time     BIGINT NOT NULL,
    logout_reason   TEXT   NOT NULL,
    contradicted    BIGINT NOT NULL, -- 1: callbacks contradict each other
    implausible     BIGINT NOT NULL, -- 1: a callback has an impossible time
    seen_at         BIGINT NOT NULL, -- when the last callback with news arrived
    name            TEXT   NOT NULL, -- the user's nickname
    login_number    BIGINT NOT NULL, -- user_update_seq plus 1; 0: no callback; -1: a callback without the number, or several numbers
    logout_number   BIGINT NOT NULL,
    PRIMARY KEY (appid, room_session_id, stay)
);

-- Published streams. The columns are those of stays.
CREATE TABLE streams (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    stream_sid      TEXT   NOT NULL,
    user_account    TEXT   NOT NULL,
    user_role       TEXT   NOT NULL, -- empty: these callbacks have none
    role_at         BIGINT NOT NULL,
    create_time     BIGINT NOT NULL,
    close_time      BIGINT NOT NULL,
    close_type      TEXT   NOT NULL,
    contradicted    BIGINT NOT NULL,
    implausible     BIGINT NOT NULL,
    seen_at         BIGINT NOT NULL,
    name            TEXT   NOT NULL, -- the stream_id
    create_number   BIGINT NOT NULL, -- stream_seq plus 1; otherwise as login_number
    close_number    BIGINT NOT NULL,
    PRIMARY KEY (appid, room_session_id, stream_sid)
);

-- Participants of each entry: of the bill, which has number 0, and those that an adjustment
-- changes. Times are in milliseconds; a maximum of -1 is unknown.
CREATE TABLE participants (
    appid             BIGINT NOT NULL,
    room_session_id   TEXT   NOT NULL,
    user_account      TEXT   NOT NULL,
    number            BIGINT NOT NULL,
    excluded          TEXT   NOT NULL, -- why the user is not a participant, or empty
    in_room           BIGINT NOT NULL,
    in_room_min       BIGINT NOT NULL,
    in_room_max       BIGINT NOT NULL,
    in_room_reasons   TEXT   NOT NULL,
    published         BIGINT NOT NULL,
    published_min     BIGINT NOT NULL,
    published_max     BIGINT NOT NULL,
    published_reasons TEXT   NOT NULL,
    PRIMARY KEY (appid, room_session_id, user_account, number)
);

-- ZEGO's answers about sessions without a room_close.
CREATE TABLE checks (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    gone            BIGINT NOT NULL, -- number of consecutive answers without a user in the room
    asked_at        BIGINT NOT NULL, -- when the last answer arrived
    PRIMARY KEY (appid, room_session_id)
);

-- Finds a room's other open sessions.
CREATE INDEX sessions_rooms ON sessions (appid, room_id, seen_at) WHERE closed_at = 0;

-- Recording tasks, from callbacks, which don't name the session: see Ledger.RecordingsOf.
CREATE TABLE recording_tasks (
    appid           BIGINT NOT NULL,
    task_id         TEXT   NOT NULL,
    room_id         TEXT   NOT NULL,
    first_time      BIGINT NOT NULL, -- first and last callback, by ZEGO's clock
    last_time       BIGINT NOT NULL,
    uploaded        BIGINT NOT NULL, -- highest sequence of a callback with files; -1: none arrived
    alive           BIGINT NOT NULL, -- highest sequence of a callback about a task that continues; -1: none arrived
    ended           BIGINT NOT NULL, -- 1: a callback has reported the end
    room_session_id TEXT   NOT NULL, -- the session that an operator, the app or the archive assigned, or empty
    announced       BIGINT NOT NULL DEFAULT 0, -- 1: assigned by the app, so its files are expected
    answered        BIGINT NOT NULL DEFAULT 0, -- 1: ZEGO's API has reported its end and all its files
    archived_at     BIGINT NOT NULL, -- when it was archived with that session; 0: it wasn't
    look_at         BIGINT NOT NULL DEFAULT 0, -- when to check whether an archive lacks it; see notLate
    changes         BIGINT NOT NULL DEFAULT 0, -- number of changes of its files and of its session
    PRIMARY KEY (appid, task_id)
);

CREATE INDEX recording_tasks_room ON recording_tasks (appid, room_id, last_time);
CREATE INDEX recording_tasks_session ON recording_tasks (appid, room_session_id) WHERE room_session_id <> '';
CREATE INDEX recording_tasks_late ON recording_tasks (last_time, appid, task_id) WHERE archived_at = 0 AND look_at < 576460752303423488;
CREATE INDEX recording_tasks_left ON recording_tasks (last_time) WHERE archived_at = 0;

CREATE TABLE recording_files (
    appid        BIGINT NOT NULL,
    task_id      TEXT   NOT NULL,
    file_id      TEXT   NOT NULL,
    sequence     BIGINT NOT NULL, -- of the latest callback about it
    status       BIGINT NOT NULL,
    url          TEXT   NOT NULL,
    format       TEXT   NOT NULL,
    size         BIGINT NOT NULL,
    duration     BIGINT NOT NULL, -- milliseconds
    user_id      TEXT   NOT NULL,
    stream_id    TEXT   NOT NULL,
    track        BIGINT NOT NULL,
    begin_time   BIGINT NOT NULL,
    reported_time BIGINT NOT NULL, -- time of the first callback with this status, by ZEGO's clock
    other_sequence BIGINT NOT NULL DEFAULT -1, -- of the last callback with a status that is not final
    other_status   BIGINT NOT NULL DEFAULT 0,  -- the status in that callback
    saved        TEXT   NOT NULL, -- the manifest's entry of a file saved from the backup storage, or empty
    PRIMARY KEY (appid, task_id, file_id)
);

-- Ends of sessions whose runs archive recordings. A session ends before the next of its room
-- begins.
CREATE TABLE room_ends (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    room_id         TEXT   NOT NULL,
    room_close_time BIGINT NOT NULL,
    close_reason    TEXT   NOT NULL DEFAULT '',
    reconciled      BIGINT NOT NULL DEFAULT 0,
    archived_at     BIGINT NOT NULL DEFAULT 0, -- when the recordings were archived; later ones can be added
    PRIMARY KEY (appid, room_session_id)
);

CREATE INDEX room_ends_room ON room_ends (appid, room_id, room_close_time);
CREATE INDEX sessions_room ON sessions (appid, room_id);

-- Sessions whose entries were restored after the ledger had lost them. The events behind these
-- entries may be lost.
CREATE TABLE restored (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    restored_at     BIGINT NOT NULL,
    PRIMARY KEY (appid, room_session_id)
);

-- One row, with the time of the workers' last check for due work and the earliest time of the
-- next. If the number is smaller than a worker has seen, the ledger was restored from a copy.
CREATE TABLE looks (
    number    BIGINT NOT NULL,
    looked_at BIGINT NOT NULL,
    next_at   BIGINT NOT NULL
);

INSERT INTO looks VALUES (0, 0, 0);

-- Earliest time of the next call in each budget of ZEGO's APIs. All processes share it.
CREATE TABLE turns (
    budget  TEXT   NOT NULL PRIMARY KEY,
    next_at BIGINT NOT NULL
);

-- The last comparison of each app: ZEGO's counts, and how many of them the ledger lacks.
CREATE TABLE comparisons (
    appid         BIGINT NOT NULL PRIMARY KEY,
    compared_at   BIGINT NOT NULL,
    since         BIGINT NOT NULL, -- first of the consecutive comparisons that found unknown rooms or users; 0: the last found none
    rooms         BIGINT NOT NULL,
    users         BIGINT NOT NULL,
    unknown_rooms BIGINT NOT NULL,
    unknown_users BIGINT NOT NULL
);

-- Periods whose events the ledger has lost, because it was restored from a copy.
CREATE TABLE losses (
    from_time BIGINT NOT NULL,
    to_time   BIGINT NOT NULL,
    PRIMARY KEY (from_time, to_time)
);

-- Sessions with a room_close that contradicts the first. The values are those of the first
-- contradicting room_close.
CREATE TABLE contradictions (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    room_id         TEXT   NOT NULL,
    room_close_time BIGINT NOT NULL,
    seen_at         BIGINT NOT NULL,
    PRIMARY KEY (appid, room_session_id)
);

-- Genuine callbacks that were refused because a required field is unreadable.
CREATE TABLE unreadable (
    appid     BIGINT NOT NULL,
    event     TEXT   NOT NULL,
    room_id   TEXT   NOT NULL, -- empty if unreadable
    task_id   TEXT   NOT NULL,
    field     TEXT   NOT NULL,
    problem   TEXT   NOT NULL,
    last_time BIGINT NOT NULL, -- by ZEGO's clock
    PRIMARY KEY (appid, event, room_id, task_id, field)
);

CREATE INDEX unreadable_last ON unreadable (last_time);
