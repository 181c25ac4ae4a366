-- The ledger, for SQLite and PostgreSQL alike.
--
-- Sessions use all 64 bits of an unsigned integer, for which neither database has a
-- type: they are decimal text. Times are Unix milliseconds, those of users, rooms and
-- recordings by ZEGO's clock, others by ours; 0 means unknown.
-- There are few indexes, as each slows down every callback.
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
    callbacks           BIGINT NOT NULL, -- how many of users are missing; -1: unknown
    stream_callbacks    BIGINT NOT NULL, -- and of streams
    excluded            TEXT   NOT NULL, -- who is no participant, and why
    currency            TEXT   NOT NULL,
    price_per_minute    BIGINT NOT NULL,
    by_function         BIGINT NOT NULL, -- 1: the program's own function has priced it
    amount              BIGINT NOT NULL,
    lines               BIGINT NOT NULL
);

CREATE UNIQUE INDEX bills_session ON bills (appid, room_session_id);
CREATE INDEX bills_closed ON bills (room_close_time);

-- What came after the bill. The figures are those of the session as it is known by
-- then; billed_... is what the entry adds to those before it, and may be negative.
CREATE TABLE adjustments (
    id                  TEXT   NOT NULL PRIMARY KEY,
    bill_id             TEXT   NOT NULL,
    number              BIGINT NOT NULL, -- of the session's adjustments, from 1
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
    callbacks           BIGINT NOT NULL, -- how many of users are missing; -1: unknown
    stream_callbacks    BIGINT NOT NULL, -- and of streams
    excluded            TEXT   NOT NULL, -- who is no participant, and why
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

-- The lines of bills and adjustments. Those of an entry add up to its amount.
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

-- What callbacks told of sessions.
CREATE TABLE sessions (
    appid            BIGINT NOT NULL,
    room_session_id  TEXT   NOT NULL,
    room_id          TEXT   NOT NULL,
    room_create_time BIGINT NOT NULL,
    contradicted     BIGINT NOT NULL, -- 1: two callbacks disagree about it
    implausible      BIGINT NOT NULL, -- 1: a callback told a time that can't be
    seen_at          BIGINT NOT NULL, -- the last sign of life
    closed_at        BIGINT NOT NULL, -- when it was noted that the room has closed
    entries          BIGINT NOT NULL, -- how many were made: the bill is one, then adjustments
    dirty_at         BIGINT NOT NULL, -- when an event came that the last entry doesn't have
    adjusting_at     BIGINT NOT NULL DEFAULT 0, -- when the run that adjusts it was started
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
    role_at         BIGINT NOT NULL, -- the logout that knew the role; 0: a login did
    login_time      BIGINT NOT NULL,
    logout_time     BIGINT NOT NULL,
    logout_reason   TEXT   NOT NULL,
    contradicted    BIGINT NOT NULL, -- 1: two callbacks disagree about it
    implausible     BIGINT NOT NULL, -- 1: a callback told a time that can't be
    seen_at         BIGINT NOT NULL, -- when the last callback came that told something new
    name            TEXT   NOT NULL, -- the user's nickname
    login_number    BIGINT NOT NULL, -- 1 more than the user_update_seq; 0: no callback; -1: one without, or several
    logout_number   BIGINT NOT NULL,
    PRIMARY KEY (appid, room_session_id, stay)
);

-- What users published. The columns are those of stays.
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
    create_number   BIGINT NOT NULL, -- 1 more than the stream_seq; as above
    close_number    BIGINT NOT NULL,
    PRIMARY KEY (appid, room_session_id, stream_sid)
);

-- What is billed of each user: by the bill, which is number 0, and by each adjustment that
-- changes it. Milliseconds; a maximum of -1 is unknown.
CREATE TABLE participants (
    appid             BIGINT NOT NULL,
    room_session_id   TEXT   NOT NULL,
    user_account      TEXT   NOT NULL,
    number            BIGINT NOT NULL,
    excluded          TEXT   NOT NULL, -- why the user is no participant; or empty
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

-- What was asked about sessions of which no room_close is known.
CREATE TABLE checks (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    gone            BIGINT NOT NULL, -- how many answers in a row told that the room is gone
    asked_at        BIGINT NOT NULL, -- when the last of them came
    PRIMARY KEY (appid, room_session_id)
);

-- Finds the other sessions of a room that are open.
CREATE INDEX sessions_rooms ON sessions (appid, room_id, seen_at) WHERE closed_at = 0;

-- What callbacks told of recording tasks. Nothing of it tells the session: see
-- Ledger.RecordingsOf.
CREATE TABLE recording_tasks (
    appid           BIGINT NOT NULL,
    task_id         TEXT   NOT NULL,
    room_id         TEXT   NOT NULL,
    first_time      BIGINT NOT NULL, -- the first and the last callback, by ZEGO's clock
    last_time       BIGINT NOT NULL,
    uploaded        BIGINT NOT NULL, -- the highest sequence of those that tell of files; -1: none came
    alive           BIGINT NOT NULL, -- and of those of a task that goes on; -1: none came
    ended           BIGINT NOT NULL, -- 1: one came that says that it ended
    room_session_id TEXT   NOT NULL, -- the session that a person, the app, or its archive says it is of; or empty
    announced       BIGINT NOT NULL DEFAULT 0, -- 1: by the app, so that its files are still to come
    answered        BIGINT NOT NULL DEFAULT 0, -- 1: ZEGO's API answered that it has ended, and where all its files are
    archived_at     BIGINT NOT NULL, -- when it was archived with that session
    look_at         BIGINT NOT NULL DEFAULT 0, -- when to look whether an archive lacks it; see notLate
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
    sequence     BIGINT NOT NULL, -- of the callback that told it; a later one counts
    status       BIGINT NOT NULL,
    url          TEXT   NOT NULL,
    format       TEXT   NOT NULL,
    size         BIGINT NOT NULL,
    duration     BIGINT NOT NULL, -- milliseconds
    user_id      TEXT   NOT NULL,
    stream_id    TEXT   NOT NULL,
    track        BIGINT NOT NULL,
    begin_time   BIGINT NOT NULL,
    told_time    BIGINT NOT NULL, -- when its status was told first, by ZEGO's clock
    other_sequence BIGINT NOT NULL DEFAULT -1, -- of the last callback that said it was nowhere,
    other_status   BIGINT NOT NULL DEFAULT 0,  -- and what that said
    saved        TEXT   NOT NULL, -- what was saved out of the backup storage, as the manifest has it; or empty
    PRIMARY KEY (appid, task_id, file_id)
);

-- When rooms closed of which somebody asked for the recordings: one session ends
-- before the next of its room begins.
CREATE TABLE room_ends (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    room_id         TEXT   NOT NULL,
    room_close_time BIGINT NOT NULL,
    close_reason    TEXT   NOT NULL DEFAULT '',
    reconciled      BIGINT NOT NULL DEFAULT 0,
    archived_at     BIGINT NOT NULL DEFAULT 0, -- when its recordings were; what comes later can be added
    PRIMARY KEY (appid, room_session_id)
);

CREATE INDEX room_ends_room ON room_ends (appid, room_id, room_close_time);
CREATE INDEX sessions_room ON sessions (appid, room_id);

-- Sessions whose entries were put back after the ledger had lost them. The events that
-- they are of may be lost for good.
CREATE TABLE restored (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    restored_at     BIGINT NOT NULL,
    PRIMARY KEY (appid, room_session_id)
);

-- One row: the last time that a worker looked for what is due, and the earliest time of
-- the next look. A number smaller than a worker has seen means that the ledger was
-- restored from a copy.
CREATE TABLE looks (
    number    BIGINT NOT NULL,
    looked_at BIGINT NOT NULL,
    next_at   BIGINT NOT NULL
);

INSERT INTO looks VALUES (0, 0, 0);

-- When the next call of a budget of ZEGO's APIs may be made: all processes share it.
CREATE TABLE turns (
    budget  TEXT   NOT NULL PRIMARY KEY,
    next_at BIGINT NOT NULL
);

-- The last comparison of each app: what ZEGO counted, and what the ledger lacks of it.
CREATE TABLE comparisons (
    appid         BIGINT NOT NULL PRIMARY KEY,
    compared_at   BIGINT NOT NULL,
    since         BIGINT NOT NULL, -- the first of those in a row that found unknown ones; 0: the last found none
    rooms         BIGINT NOT NULL,
    users         BIGINT NOT NULL,
    unknown_rooms BIGINT NOT NULL,
    unknown_users BIGINT NOT NULL
);

-- Times of which the ledger has lost what it was told, as it was restored from a copy.
CREATE TABLE losses (
    from_time BIGINT NOT NULL,
    to_time   BIGINT NOT NULL,
    PRIMARY KEY (from_time, to_time)
);

-- Sessions of which a second room_close contradicts the first: of each, what the first
-- such one told.
CREATE TABLE contradictions (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    room_id         TEXT   NOT NULL,
    room_close_time BIGINT NOT NULL,
    seen_at         BIGINT NOT NULL,
    PRIMARY KEY (appid, room_session_id)
);

-- Genuine callbacks that were refused, as a field that they need can't be read.
CREATE TABLE unreadable (
    appid     BIGINT NOT NULL,
    event     TEXT   NOT NULL,
    room_id   TEXT   NOT NULL, -- empty if it can't be read
    task_id   TEXT   NOT NULL,
    field     TEXT   NOT NULL,
    problem   TEXT   NOT NULL,
    last_time BIGINT NOT NULL, -- by ZEGO's clock
    PRIMARY KEY (appid, event, room_id, task_id, field)
);

CREATE INDEX unreadable_last ON unreadable (last_time);
