-- name: refuse
-- Why a job of the queue came to nothing; each receive says it again.
INSERT INTO refused_job AS r (message_id, job_id, tenant_id, recipient, reason, receives)
VALUES (%(message_id)s, %(job_id)s, %(tenant_id)s, %(recipient)s, %(reason)s, %(receives)s)
    ON CONFLICT (message_id)
    DO UPDATE SET reason = excluded.reason, receives = excluded.receives, updated_at = now()

-- name: accepted
-- What was refused before and went well now: its tenant was opened meanwhile, say.
DELETE FROM refused_job WHERE message_id = ANY (%(ids)s::text[])

-- name: reasons
SELECT message_id, reason FROM refused_job WHERE message_id = ANY (%(ids)s::text[])

-- name: forget
-- Dead letters are kept by the queue for 14 days; this is kept longer, for complaints.
DELETE FROM refused_job WHERE updated_at < now() - interval '90 days'
