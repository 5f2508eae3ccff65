select status, count(*) as cnt
from notification_outbox
group by 1
order by 1;
