-- Statements of the outbox dispatch.

-- name: born
-- How many notices a pass over the sheet brought: what followed the rows that it wrote.
-- Needs delivery_parent.
SELECT count(*) FROM delivery
 WHERE parent_id = ANY (%(parents)s::bigint[]) AND channel = %(channel)s
