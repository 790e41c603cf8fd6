select
    decisions.found as decisions,
    evidence.found as rows_of_evidence
from (select count(*) as found from {{ ref('stg_promotion_decisions') }}) as decisions
cross join (select count(*) as found from {{ ref('promotion_evidence') }}) as evidence
where decisions.found <> evidence.found
