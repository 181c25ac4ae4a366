-- +goose Up
-- What was asked about sessions of which no room_close is known. Times are Unix
-- milliseconds by our clock.
CREATE TABLE checks (
    appid           BIGINT NOT NULL,
    room_session_id TEXT   NOT NULL,
    gone            BIGINT NOT NULL, -- how many answers in a row told that the room is gone
    asked_at        BIGINT NOT NULL, -- when the last of them came
    PRIMARY KEY (appid, room_session_id)
);

-- Finds the other sessions of a room that are open.
CREATE INDEX sessions_rooms ON sessions (appid, room_id, seen_at) WHERE closed_at = 0;

-- +goose Down
DROP INDEX sessions_rooms;
DROP TABLE checks;
