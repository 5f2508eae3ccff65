-- name: differing
-- The records of a batch that are new, changed, or back; what is the same stays here. By the
-- primary key, each by itself: LIMIT keeps the lookup from being flattened into a join that a
-- plan made while the table was empty walks over all of it for. The revision of one that is not
-- known (any more) goes on from the last that was told of it: a row key is used once for all time.
SELECT k.position, r.source_id IS NOT NULL,
       coalesce(r.revision,
                (SELECT max(a.revision) FROM alert a
                  WHERE a.source_type = %(source_type)s AND a.source_id = k.key),
                0),
       r.missing_since IS NOT NULL, r.payload,
       r.status, r.status_msg, r.ds_date, r.gc_date, r.sjc_date
  FROM unnest(CAST(%(keys)s AS text[]), CAST(%(hashes)s AS bytea[]))
       WITH ORDINALITY AS k (key, hash, position)
  LEFT JOIN LATERAL (
       SELECT * FROM source_record s
        WHERE s.source_type = %(source_type)s AND s.source_id = k.key
        LIMIT 1) r ON true
 WHERE r.source_id IS NULL OR r.hash <> k.hash OR r.missing_since IS NOT NULL
 ORDER BY k.position

-- name: present
-- Who is known of a course and not missing; index source_record_present alone.
SELECT source_id
  FROM source_record
 WHERE source_type = 'enrolment_status' AND missing_since IS NULL
   AND category_id = %(category_id)s AND course_id = %(course_id)s

-- name: present_courses
-- The courses of a category of which somebody is known and not missing. One step through
-- source_record_present for each, however many records they have.
WITH RECURSIVE course AS (
    (SELECT course_id
       FROM source_record
      WHERE source_type = 'enrolment_status' AND missing_since IS NULL
        AND category_id = %(category_id)s
      ORDER BY course_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.course_id
              FROM source_record r
             WHERE r.source_type = 'enrolment_status' AND r.missing_since IS NULL
               AND r.category_id = %(category_id)s AND r.course_id > course.course_id
             ORDER BY r.course_id LIMIT 1)
      FROM course
     WHERE course.course_id IS NOT NULL)
SELECT course_id FROM course WHERE course_id IS NOT NULL

-- name: doubted_courses
SELECT course_id FROM doubted_course WHERE category_id = %(category_id)s

-- name: doubt_course
-- Only with the lock, as everything that a run writes.
INSERT INTO doubted_course (category_id, course_id, run_id)
SELECT %(category_id)s, %(course_id)s, %(run_id)s
  FROM job_lock
 WHERE job_name = %(job_name)s AND fence = %(fence)s AND lock_expires_at > clock_timestamp()
   FOR KEY SHARE
    ON CONFLICT (category_id, course_id) DO NOTHING
RETURNING run_id

-- name: trust_course
DELETE FROM doubted_course WHERE category_id = %(category_id)s AND course_id = %(course_id)s

-- name: count_known
SELECT count(*) FILTER (WHERE source_type = 'enrolment_status' AND missing_since IS NULL),
       count(*) FILTER (WHERE source_type = 'enrolment_user_detail')
  FROM source_record
 WHERE category_id = %(category_id)s

-- name: upsert
-- New and changed records. Each names the revision that it was found at: where the stored one
-- is another, nothing is written and the count of what came back is short. In the order of
-- keys, so that two such statements can wait for each other in one direction only.
-- update_time is written along, never by itself: some LMS touch it every night, and a sync in which
-- nothing changed writes nothing. Until the next change it says when the LMS last meant it.
WITH input AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(%(batch)s AS json)) AS i (
        source_type text, source_id text, course_id text, course_name text, user_id text,
        user_name text, status text, status_msg text, ds_date timestamptz, gc_date timestamptz,
        sjc_date timestamptz, update_time timestamptz, payload jsonb, hash text, revision bigint)
)
INSERT INTO source_record AS r (
       source_type, source_id, category_id, course_id, course_name, user_id, user_name, status,
       status_msg, ds_date, gc_date, sjc_date, update_time, payload, hash, revision, run_id)
SELECT source_type, source_id, %(category_id)s, course_id, course_name, user_id, user_name, status,
       status_msg, ds_date, gc_date, sjc_date, update_time, payload, decode(hash, 'hex'), revision,
       %(run_id)s
  FROM input
 ORDER BY source_type, source_id
    ON CONFLICT (source_type, source_id) DO UPDATE
   SET course_name = EXCLUDED.course_name, user_id = EXCLUDED.user_id,
       user_name = EXCLUDED.user_name, status = EXCLUDED.status, status_msg = EXCLUDED.status_msg,
       ds_date = EXCLUDED.ds_date, gc_date = EXCLUDED.gc_date, sjc_date = EXCLUDED.sjc_date,
       update_time = EXCLUDED.update_time, payload = EXCLUDED.payload, hash = EXCLUDED.hash,
       revision = EXCLUDED.revision, run_id = EXCLUDED.run_id, missing_since = NULL,
       updated_at = now()
 WHERE r.revision = EXCLUDED.revision - 1

-- name: mark_missing
-- By source_record_present. ANY, not a join, which may be made by reading all that are present.
UPDATE source_record r
   SET missing_since = now(), revision = r.revision + 1, run_id = %(run_id)s, updated_at = now()
 WHERE r.source_type = 'enrolment_status' AND r.source_id = ANY (CAST(%(keys)s AS text[]))
   AND r.category_id = %(category_id)s AND r.course_id = %(course_id)s
   AND r.missing_since IS NULL
RETURNING r.source_id, r.user_id, r.user_name, r.course_id, r.course_name, r.revision, r.status,
          r.status_msg

-- name: draw_alert_ids
-- Before anything is written: an alert names its notification, and the notification the alert.
SELECT nextval('alert_id_seq') FROM generate_series(1, %(count)s)

-- name: insert_alerts
INSERT INTO alert (id, run_id, category_id, alert_type, severity, source_type, source_id, course_id,
                   user_id, revision, error_group, title, message, old, new, notification_id)
SELECT id, %(run_id)s, category_id, alert_type, severity, source_type, source_id, course_id,
       user_id, revision, error_group, title, message, old, new, notification_id
  FROM json_to_recordset(CAST(%(batch)s AS json)) AS a (
           id bigint, category_id bigint, alert_type text, severity text, source_type text,
           source_id text, course_id text, user_id text, revision bigint, error_group text,
           title text, message text, old jsonb, new jsonb, notification_id uuid)
 ORDER BY source_type, source_id, revision
