select
  id, source_id, channel, template_code, recipient,
  status, retry_count, last_error, next_retry_at, updated_at
from notification_outbox
where status = 'FAILED'
order by updated_at desc
limit 50;
