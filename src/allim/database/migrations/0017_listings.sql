-- What operators look for, found without walking over what went well. A delivery that succeeds is
-- never in either index, so neither costs the hot path a write.

-- dead letters in groups: which groups there are, and the rows of one, newest first
CREATE INDEX delivery_dead ON delivery (status, channel, (coalesce(error_code, '')), id)
    WHERE status IN ('DEAD', 'HELD') AND superseded_by IS NULL;

-- notifications of which something was not sent, newest first
CREATE INDEX delivery_unsent ON delivery (notification_id)
    WHERE status IN ('DEAD', 'HELD', 'SKIPPED', 'CANCELED', 'EXPIRED');
