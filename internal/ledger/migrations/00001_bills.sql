-- +goose Up
-- Sessions use all 64 bits of an unsigned integer, for which neither database
-- has a type: they are decimal text. Times are Unix milliseconds.
CREATE TABLE bills (
    id              TEXT   NOT NULL PRIMARY KEY,
    appid           BIGINT NOT NULL,
    room_id         TEXT   NOT NULL,
    room_session_id TEXT   NOT NULL,
    close_reason    BIGINT NOT NULL,
    room_close_time BIGINT NOT NULL,
    made_at         BIGINT NOT NULL
);

CREATE UNIQUE INDEX bills_session ON bills (appid, room_session_id);

-- +goose Down
DROP TABLE bills;
