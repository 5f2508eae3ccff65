-- name: find_templates
-- What deliveries name, each by its best: the tenant's own before those for everybody, the
-- language before its base (ko-kr, ko) before the one without a language, the newest version. The
-- texts only where their digest is not known. Needs template_version, by its first two columns.
-- The parameter is {"wanted": […], "known": [digests]}.
SELECT w.place, t.language, t.version, t.digest,
       CASE WHEN t.digest NOT IN (SELECT json_array_elements_text(CAST(%(batch)s AS json) -> 'known'))
            THEN CAST(json_build_object('subject', t.subject, 'body', t.body, 'html', t.html,
                                        'blocks', t.blocks) AS text) END,
       CASE WHEN t.id IS NULL THEN CAST((
            SELECT json_agg(DISTINCT o.language) FROM template AS o
             WHERE o.code = w.code AND o.channel = w.channel AND o.deactivated_at IS NULL
               AND (o.tenant_id IS NULL OR o.tenant_id = w.tenant_id)) AS text) END
  FROM json_to_recordset(CAST(%(batch)s AS json) -> 'wanted') AS w (
           place integer, tenant_id bigint, channel text, code text, language text,
           version integer)
  LEFT JOIN LATERAL (
       SELECT * FROM template AS t
        WHERE t.code = w.code AND t.channel = w.channel AND t.deactivated_at IS NULL
          AND (t.tenant_id IS NULL OR t.tenant_id = w.tenant_id)
          AND t.language IN (coalesce(w.language, ''), split_part(w.language, '-', 1), '')
          AND (w.version IS NULL OR t.version = w.version)
        ORDER BY t.tenant_id NULLS LAST, length(t.language) DESC, t.version DESC
        LIMIT 1) AS t ON true

-- name: template_json
-- A fragment: one template `t` as TemplateView has it.
json_build_object('id', t.id, 'tenant_id', t.tenant_id, 'code', t.code, 'channel', t.channel,
    'language', nullif(t.language, ''), 'version', t.version, 'description', t.description,
    'subject', t.subject, 'body', t.body, 'html', t.html, 'blocks', t.blocks,
    'active', t.deactivated_at IS NULL, 'created_by', t.created_by, 'created_at', t.created_at)

-- name: newest
SELECT {template}, t.digest FROM template AS t
 WHERE t.code = %(code)s AND t.channel = %(channel)s AND t.language = %(language)s
   AND t.tenant_id IS NOT DISTINCT FROM CAST(%(tenant)s AS bigint)
 ORDER BY t.version DESC LIMIT 1

-- name: add
-- The next version; none where somebody else took its number this moment.
INSERT INTO template AS t (tenant_id, code, channel, language, version, subject, body, html, blocks,
                           digest, description, created_by)
VALUES (%(tenant)s, %(code)s, %(channel)s, %(language)s, %(version)s, %(subject)s, %(body)s,
        %(html)s, %(blocks)s, %(digest)s, %(description)s, %(created_by)s)
    ON CONFLICT DO NOTHING
RETURNING {template}

-- name: list
-- The newest version of each, newest first. Needs template_version for what is newer.
SELECT {template} FROM template AS t
 WHERE NOT EXISTS (SELECT FROM template AS newer
                    WHERE newer.code = t.code AND newer.channel = t.channel
                      AND newer.language = t.language
                      AND newer.tenant_id IS NOT DISTINCT FROM t.tenant_id
                      AND newer.version > t.version)
   AND (CAST(%(before)s AS bigint) IS NULL OR t.id < %(before)s)
   AND (CAST(%(tenant)s AS bigint) IS NULL OR t.tenant_id IS NULL OR t.tenant_id = %(tenant)s)
   AND (CAST(%(channel)s AS text) IS NULL OR t.channel = %(channel)s)
   AND (CAST(%(language)s AS text) IS NULL OR t.language = %(language)s)
 ORDER BY t.id DESC LIMIT %(limit)s

-- name: versions
-- All versions of one code, newest first.
SELECT {template} FROM template AS t
 WHERE t.code = %(code)s
   AND (CAST(%(before)s AS bigint) IS NULL OR t.id < %(before)s)
   AND (CAST(%(tenant)s AS bigint) IS NULL OR t.tenant_id IS NULL OR t.tenant_id = %(tenant)s)
   AND (CAST(%(channel)s AS text) IS NULL OR t.channel = %(channel)s)
   AND (CAST(%(language)s AS text) IS NULL OR t.language = %(language)s)
 ORDER BY t.id DESC LIMIT %(limit)s

-- name: deactivate
-- By the caller's own tenant only: what is for everybody is the operator's.
UPDATE template AS t SET deactivated_at = now(), updated_at = now()
 WHERE t.code = %(code)s AND t.deactivated_at IS NULL
   AND (CAST(%(tenant)s AS bigint) IS NULL OR t.tenant_id = %(tenant)s)
   AND (CAST(%(channel)s AS text) IS NULL OR t.channel = %(channel)s)
   AND (CAST(%(language)s AS text) IS NULL OR t.language = %(language)s)
   AND (CAST(%(version)s AS integer) IS NULL OR t.version = %(version)s)
RETURNING t.id
