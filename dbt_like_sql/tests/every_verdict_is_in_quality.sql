select verdicts.verdict_id
from {{ ref('stg_quality_verdicts') }} as verdicts
left join {{ ref('quality') }} as quality on quality.verdict_id = verdicts.verdict_id
group by verdicts.verdict_id, verdicts.checks
having count(quality.quality_id) <> greatest(json_array_length(verdicts.checks), 1)
