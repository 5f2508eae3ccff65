select
  id, trigger_type, status, error_message, started_at, finished_at
from run_log
where status = 'FAILED'
order by id desc
limit 20;
