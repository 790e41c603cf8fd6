{# Integer cents as dollars, exactly: a decimal product, because DuckDB's division returns floating point. #}
{% macro usd(cents) -%}
    cast(cast({{ cents }} as decimal(18, 0)) * cast(0.01 as decimal(3, 2)) as decimal(18, 2))
{%- endmacro %}
