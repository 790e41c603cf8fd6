with gates as (
    select
        decision_id,
        unnest(cast(gates as json[])) as gate,
        generate_subscripts(cast(gates as json[]), 1) as gate_number
    from {{ ref('stg_promotion_decisions') }}
)

select
    gates.decision_id || '/' || gates.gate_number as gate_result_id,
    gates.decision_id,
    decisions.bot_id,
    bots.bot_name,
    decisions.decided_at,
    decisions.is_latest,
    gates.gate_number,
    gates.gate ->> '$.name' as gate_name,
    gates.gate ->> '$.status' as status,
    gates.gate ->> '$.input' as input,
    gates.gate ->> '$.comparison' as comparison,
    gates.gate ->> '$.threshold' as threshold,
    gates.gate ->> '$.reason.code' as reason_code,
    gates.gate ->> '$.reason.message' as reason_message,
    decisions.policy_hash
from gates
inner join {{ ref('stg_promotion_decisions') }} as decisions on decisions.decision_id = gates.decision_id
inner join {{ ref('stg_bots') }} as bots on bots.bot_id = decisions.bot_id
