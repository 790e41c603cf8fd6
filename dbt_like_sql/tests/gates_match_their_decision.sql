with not_passed as (
    select
        decision_id,
        list(gate_name order by gate_name) as gates
    from {{ ref('gate_results') }}
    where status <> 'PASS'
    group by decision_id
)

select decisions.decision_id
from {{ ref('stg_promotion_decisions') }} as decisions
left join not_passed on not_passed.decision_id = decisions.decision_id
where coalesce(not_passed.gates, []) <> list_sort(cast(decisions.failing_gates as varchar[]))
