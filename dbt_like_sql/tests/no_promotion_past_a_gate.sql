select decision_id
from {{ ref('promotion_evidence') }}
where decision = 'PROMOTE' and (gates_total = 0 or gates_passed <> gates_total or session_status <> 'COMPLETED')
