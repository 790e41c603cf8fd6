{# Failures that are the provider's own refusal, or that never reached it: nothing was sold. The budget counts the same
   way (UNBILLED in blaid_pipelines/market/purchase/budget.py); a test compares the lists. #}
{% macro unbilled() -%}
    ('AUTH_FAILED', 'ENTITLEMENT_MISSING', 'BAD_REQUEST', 'NOT_FOUND', 'SYMBOL_NOT_FOUND', 'RANGE_UNAVAILABLE', 'RATE_LIMITED', 'PROVIDER_UNREACHABLE')
{%- endmacro %}
