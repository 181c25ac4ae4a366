-- +goose Up
-- What callbacks told of recording tasks. Times are Unix milliseconds; 0 is one that
-- isn't known. Nothing of it tells the session: see Ledger.RecordingsOf.
CREATE TABLE recording_tasks (
    appid           BIGINT NOT NULL,
    task_id         TEXT   NOT NULL,
    room_id         TEXT   NOT NULL,
    client_task_id  TEXT   NOT NULL, -- empty if the app didn't set it
    first_time      BIGINT NOT NULL, -- the first and the last callback, by ZEGO's clock
    last_time       BIGINT NOT NULL,
    uploaded        BIGINT NOT NULL, -- the highest sequence of those that tell of files; -1: none came
    alive           BIGINT NOT NULL, -- and of those of a task that goes on; -1: none came
    ended           BIGINT NOT NULL, -- 1: one came that says that it ended
    room_session_id TEXT   NOT NULL, -- the session that a person, or its archive, says it is of; or empty
    archived_at     BIGINT NOT NULL, -- when it was archived with that session
    PRIMARY KEY (appid, task_id)
);

CREATE INDEX recording_tasks_room ON recording_tasks (appid, room_id, last_time);
CREATE INDEX recording_tasks_session ON recording_tasks (appid, room_session_id) WHERE room_session_id <> '';
CREATE INDEX recording_tasks_client ON recording_tasks (appid, client_task_id) WHERE client_task_id <> '';
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
    PRIMARY KEY (appid, room_session_id)
);

CREATE INDEX room_ends_room ON room_ends (appid, room_id, room_close_time);
CREATE INDEX sessions_room ON sessions (appid, room_id);

-- +goose Down
DROP INDEX sessions_room;
DROP TABLE room_ends;
DROP TABLE recording_files;
DROP TABLE recording_tasks;
