select
  s.id as sheet_id,
  s.status as sheet_status,
  s.source_id as sheet_source_id,
  n.id as noti_id,
  n.status as noti_status,
  n.source_id as noti_source_id,
  s.updated_at as sheet_updated_at,
  n.updated_at as noti_updated_at
from sheet_outbox s
left join notification_outbox n
  on n.source_type = 'sheet_alert'
 and n.source_id = s.row_key
order by s.id desc
limit 100;
