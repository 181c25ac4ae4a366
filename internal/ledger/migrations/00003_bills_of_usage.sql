-- +goose Up
-- A bill that was made before has none of this: its end_from is empty. A worker of
-- the version before makes such bills still.
ALTER TABLE bills ADD COLUMN reconciled          BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bills ADD COLUMN start_time          BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bills ADD COLUMN start_from          TEXT   NOT NULL DEFAULT '';
ALTER TABLE bills ADD COLUMN end_time            BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bills ADD COLUMN end_from            TEXT   NOT NULL DEFAULT '';
ALTER TABLE bills ADD COLUMN participants        BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bills ADD COLUMN stays               BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bills ADD COLUMN participant_ms      BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bills ADD COLUMN participant_seconds BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bills ADD COLUMN participant_minutes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE bills ADD COLUMN estimated           TEXT   NOT NULL DEFAULT ''; -- the reasons; empty if it is the truth
ALTER TABLE bills ADD COLUMN currency            TEXT   NOT NULL DEFAULT ''; -- empty: there is no price, and no amount
ALTER TABLE bills ADD COLUMN price_per_minute    BIGINT NOT NULL DEFAULT 0;  -- in minor units of the currency
ALTER TABLE bills ADD COLUMN amount              BIGINT NOT NULL DEFAULT 0;

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
    close_reason        BIGINT NOT NULL,
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
    currency            TEXT   NOT NULL,
    price_per_minute    BIGINT NOT NULL,
    amount              BIGINT NOT NULL,
    billed_ms           BIGINT NOT NULL,
    billed_seconds      BIGINT NOT NULL,
    billed_minutes      BIGINT NOT NULL,
    billed_amount       BIGINT NOT NULL
);

CREATE UNIQUE INDEX adjustments_number ON adjustments (appid, room_session_id, number);
CREATE INDEX adjustments_closed ON adjustments (room_close_time);

-- +goose Down
DROP TABLE adjustments;
DROP INDEX bills_closed;
ALTER TABLE bills DROP COLUMN amount;
ALTER TABLE bills DROP COLUMN price_per_minute;
ALTER TABLE bills DROP COLUMN currency;
ALTER TABLE bills DROP COLUMN estimated;
ALTER TABLE bills DROP COLUMN participant_minutes;
ALTER TABLE bills DROP COLUMN participant_seconds;
ALTER TABLE bills DROP COLUMN participant_ms;
ALTER TABLE bills DROP COLUMN stays;
ALTER TABLE bills DROP COLUMN participants;
ALTER TABLE bills DROP COLUMN end_from;
ALTER TABLE bills DROP COLUMN end_time;
ALTER TABLE bills DROP COLUMN start_from;
ALTER TABLE bills DROP COLUMN start_time;
ALTER TABLE bills DROP COLUMN reconciled;
