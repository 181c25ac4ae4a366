-- +goose Up
-- What callbacks told of sessions. Times are Unix milliseconds, those of users and
-- rooms by ZEGO's clock, seen_at and the others by ours; 0 is one that isn't known.
-- There are few indexes, as each slows down every callback.
CREATE TABLE sessions (
    appid            BIGINT NOT NULL,
    room_session_id  TEXT   NOT NULL,
    room_id          TEXT   NOT NULL,
    room_create_time BIGINT NOT NULL,
    contradicted     BIGINT NOT NULL, -- 1: two callbacks disagree about it
    seen_at          BIGINT NOT NULL, -- the last sign of life
    closed_at        BIGINT NOT NULL, -- when it was noted that the room has closed
    entries          BIGINT NOT NULL, -- how many were made: the bill is one, then adjustments
    dirty_at         BIGINT NOT NULL, -- when usage came that the last entry doesn't have
    PRIMARY KEY (appid, room_session_id)
);

CREATE INDEX sessions_open ON sessions (seen_at) WHERE closed_at = 0;
CREATE INDEX sessions_dirty ON sessions (dirty_at) WHERE dirty_at <> 0;

CREATE TABLE stays (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    stay            TEXT   NOT NULL, -- ZEGO's session_id
    user_account    TEXT   NOT NULL,
    user_role       BIGINT NOT NULL,
    login_time      BIGINT NOT NULL,
    logout_time     BIGINT NOT NULL,
    logout_reason   BIGINT NOT NULL,
    contradicted    BIGINT NOT NULL, -- 1: two callbacks disagree about it
    seen_at         BIGINT NOT NULL, -- when the last callback came that told something new
    PRIMARY KEY (appid, room_session_id, stay)
);

-- +goose Down
DROP TABLE stays;
DROP TABLE sessions;
