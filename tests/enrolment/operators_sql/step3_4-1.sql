select status, count(*) as cnt
from sheet_outbox
group by 1
order by 1;
