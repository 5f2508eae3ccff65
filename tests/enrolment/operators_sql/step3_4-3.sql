select
  id, source_id, row_key, status, retry_count, last_error, next_retry_at, updated_at
from sheet_outbox
where status = 'FAILED'
order by updated_at desc
limit 50;
