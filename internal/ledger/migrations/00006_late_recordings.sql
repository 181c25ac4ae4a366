-- +goose Up
-- Of which sessions the recordings were archived, so that what is heard of later
-- can be added: as they were closed, and when, by our clock; 0: not yet.
ALTER TABLE room_ends ADD COLUMN close_reason BIGINT NOT NULL DEFAULT 0;
ALTER TABLE room_ends ADD COLUMN reconciled BIGINT NOT NULL DEFAULT 0;
ALTER TABLE room_ends ADD COLUMN archived_at BIGINT NOT NULL DEFAULT 0;

-- When a task that came after that was handed to a run of its own; 0: it wasn't.
ALTER TABLE recording_tasks ADD COLUMN late_at BIGINT NOT NULL DEFAULT 0;

CREATE INDEX recording_tasks_late ON recording_tasks (last_time, appid, task_id) WHERE archived_at = 0 AND late_at = 0;

-- +goose Down
DROP INDEX recording_tasks_late;
ALTER TABLE recording_tasks DROP COLUMN late_at;
ALTER TABLE room_ends DROP COLUMN archived_at;
ALTER TABLE room_ends DROP COLUMN reconciled;
ALTER TABLE room_ends DROP COLUMN close_reason;
