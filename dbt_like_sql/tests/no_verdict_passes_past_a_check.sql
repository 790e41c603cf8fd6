select
    quality_id,
    verdict,
    status
from {{ ref('quality') }}
where verdict = 'PASS' and status is distinct from 'PASS'
