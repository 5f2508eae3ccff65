-- name: record
INSERT INTO audit_log (actor, action, subject, tenant_id, detail)
VALUES (%(actor)s, %(action)s, %(subject)s, %(tenant_id)s, %(detail)s)

-- name: begin
INSERT INTO audit_log (actor, action, subject, tenant_id, detail, outcome)
VALUES (%(actor)s, %(action)s, %(subject)s, %(tenant_id)s, %(detail)s, 'begun')
RETURNING id

-- name: end
-- The one thing that may still change in a row, once.
UPDATE audit_log
   SET outcome = %(outcome)s, detail = detail || %(detail)s, updated_at = clock_timestamp()
 WHERE id = %(id)s AND outcome = 'begun'
RETURNING id

-- name: refused
INSERT INTO audit_log (actor, action, subject, tenant_id, detail, outcome)
VALUES (%(actor)s, %(action)s, %(subject)s, %(tenant_id)s, %(detail)s, 'refused')
RETURNING id

-- name: counted
-- A row that stands for several of the same: how many, never fewer than it says.
UPDATE audit_log
   SET detail = detail || jsonb_build_object('tries', %(tries)s::int),
       updated_at = clock_timestamp()
 WHERE id = %(id)s AND outcome = 'refused'
   AND coalesce((detail ->> 'tries')::int, 0) < %(tries)s::int
RETURNING id

-- name: list
-- Backwards along the primary key; a subject has audit_log_subject.
SELECT id, actor, action, subject, tenant_id, detail, outcome, created_at
  FROM audit_log
 WHERE (CAST(%(before)s AS bigint) IS NULL OR id < %(before)s)
   AND (CAST(%(actor)s AS text) IS NULL OR actor = %(actor)s)
   AND (CAST(%(action)s AS text) IS NULL OR starts_with(action, %(action)s))
   AND (CAST(%(subject)s AS text) IS NULL OR subject = %(subject)s)
 ORDER BY id DESC LIMIT %(limit)s

-- name: about
-- What was done to any of some subjects, oldest first. Needs audit_log_subject.
SELECT id, actor, action, subject, tenant_id, detail, outcome, created_at
  FROM audit_log
 WHERE subject = ANY (%(subjects)s::text[])
 ORDER BY id LIMIT %(limit)s
