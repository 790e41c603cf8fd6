-- Why a bot is or is not promoted, as one JSON document. The one parameter, bot, is the name of the bot.
-- One statement, so that all parts are of one moment. `blaid explain NAME --json` adds the sentences to exactly this.
WITH bot AS (
    SELECT * FROM blaid.bots WHERE name = :bot
),
latest_session AS (
    SELECT s.* FROM blaid.backtest_sessions s JOIN bot ON s.bot_id = bot.id
    ORDER BY s.created_at DESC, s.id DESC LIMIT 1
),
latest_score AS (
    SELECT s.* FROM blaid.autonomy_scores s JOIN bot ON s.bot_id = bot.id
    ORDER BY s.created_at DESC, s.id DESC LIMIT 1
),
latest_decision AS (
    SELECT d.* FROM blaid.promotion_decisions d JOIN bot ON d.bot_id = bot.id
    ORDER BY d.created_at DESC, d.id DESC LIMIT 1
),
-- The snapshot that was read; before any backtest, the newest one of the bot's series.
read_snapshot AS (
    SELECT n.* FROM blaid.snapshots n CROSS JOIN bot
    CROSS JOIN (SELECT coalesce((SELECT snapshot_id FROM latest_session),
                                (SELECT snapshot_id FROM latest_decision)) AS snapshot_id) AS used
    WHERE n.snapshot_id = used.snapshot_id
       OR (used.snapshot_id IS NULL AND n.instrument = bot.instrument AND n.schema = bot.schema
           AND n.symbol = coalesce(bot.symbol, n.symbol))
    ORDER BY n.created_at DESC, n.snapshot_id DESC LIMIT 1
),
-- The verdict that the session read; else the newest one on the snapshot.
read_verdict AS (
    SELECT v.* FROM blaid.quality_verdicts v JOIN read_snapshot n ON v.snapshot_id = n.snapshot_id
    WHERE v.id = coalesce((SELECT verdict_id FROM latest_session), v.id)
    ORDER BY v.created_at DESC, v.id DESC LIMIT 1
),
cited AS (
    SELECT jsonb_array_elements_text(request_ids) AS id FROM latest_session
    UNION
    SELECT jsonb_array_elements_text(request_ids) AS id FROM latest_decision
)
SELECT jsonb_build_object(
    'bot', (SELECT to_jsonb(bot) FROM bot),
    'stage', (SELECT stage FROM bot),
    'session', (SELECT to_jsonb(s) FROM latest_session s),
    'metrics', (SELECT metrics FROM latest_session),
    'diagnostics', (SELECT d.payload FROM blaid.backtest_diagnostics d JOIN latest_session s ON d.session_id = s.id),
    'score', (SELECT to_jsonb(s) FROM latest_score s),
    'decision', (SELECT to_jsonb(d) FROM latest_decision d),
    'snapshot', (SELECT to_jsonb(n) FROM read_snapshot n),
    'verdict', (SELECT to_jsonb(v) FROM read_verdict v),
    'requests', coalesce((
        SELECT jsonb_agg(jsonb_build_object(
            'id', r.id, 'created_at', r.created_at, 'trace_id', r.trace_id, 'provider', r.provider,
            'endpoint', r.endpoint, 'attempt', r.attempt, 'symbol', r.symbol, 'schema', r.schema,
            'start_ts', r.start_ts, 'end_ts', r.end_ts, 'success', r.success, 'latency_ms', r.latency_ms,
            'bar_count', r.bar_count, 'cost_usd', r.cost_usd, 'error_code', r.error_code,
            'request_fingerprint', r.request_fingerprint, 'response_sha256', r.response_sha256,
            'simulated', r.simulated) ORDER BY r.created_at, r.id)
        FROM blaid.provider_requests r JOIN cited ON r.id::text = cited.id), '[]'::jsonb),
    'requests_cited', (SELECT count(*) FROM cited),
    'stage_events', coalesce((
        SELECT jsonb_agg(to_jsonb(e) ORDER BY e.created_at, e.id)
        FROM blaid.bot_stage_events e JOIN bot ON e.bot_id = bot.id), '[]'::jsonb),
    'jobs', coalesce((
        SELECT jsonb_agg(to_jsonb(j) ORDER BY j.created_at DESC, j.id DESC) FROM (
            SELECT q.* FROM blaid.bot_jobs q JOIN bot ON q.bot_id = bot.id
            ORDER BY q.created_at DESC, q.id DESC LIMIT 5) j), '[]'::jsonb),
    'trace_ids', jsonb_build_object(
        'session', (SELECT trace_id FROM latest_session),
        'score', (SELECT trace_id FROM latest_score),
        'decision', (SELECT trace_id FROM latest_decision),
        'snapshot', (SELECT trace_id FROM read_snapshot),
        'verdict', (SELECT trace_id FROM read_verdict))
) AS bundle
WHERE EXISTS (SELECT 1 FROM bot);
