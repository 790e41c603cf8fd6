-- The moves that the database allows, and the view of market-data requests. Part of revision 0001.
-- A refusal is an integrity error (restrict_violation), so that callers see it as such.

CREATE FUNCTION blaid.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on blaid.% is not allowed: its rows are written once', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
END $$;

CREATE FUNCTION blaid.check_job_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status = 'QUEUED' THEN RETURN NEW; END IF;
        RAISE EXCEPTION 'a job begins QUEUED, not %', NEW.status
            USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
    END IF;
    IF NEW.id IS DISTINCT FROM OLD.id OR NEW.bot_id IS DISTINCT FROM OLD.bot_id
       OR NEW.job_type IS DISTINCT FROM OLD.job_type OR NEW.trace_id IS DISTINCT FROM OLD.trace_id
       OR NEW.created_at IS DISTINCT FROM OLD.created_at THEN
        RAISE EXCEPTION 'job %: what it is and whose it is does not change', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
    END IF;
    IF NEW.status = OLD.status AND OLD.status IN ('QUEUED', 'RUNNING')
       OR (OLD.status = 'QUEUED' AND NEW.status IN ('RUNNING', 'REFUSED', 'FAILED'))
       OR (OLD.status = 'RUNNING' AND NEW.status IN ('COMPLETED', 'FAILED', 'REFUSED', 'TIMEOUT')) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'job %: % does not become %', OLD.id, OLD.status, NEW.status
        USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
END $$;

CREATE FUNCTION blaid.check_stage_move() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ladder CONSTANT text[] := ARRAY['LAB', 'PAPER', 'SHADOW', 'CANARY', 'LIVE'];
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.stage = 'LAB' THEN RETURN NEW; END IF;
        RAISE EXCEPTION 'a bot begins in LAB, not in %', NEW.stage
            USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
    END IF;
    IF NEW.id IS DISTINCT FROM OLD.id THEN
        RAISE EXCEPTION 'bot %: its id does not change', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
    END IF;
    IF array_position(ladder, NEW.stage) <= array_position(ladder, OLD.stage) + 1 THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'bot %: stage % does not become %', OLD.id, OLD.stage, NEW.stage
        USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
END $$;

CREATE FUNCTION blaid.check_request_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    outcome CONSTANT text[] := ARRAY['completed_at', 'success', 'latency_ms', 'http_status', 'error_code',
        'error_message', 'provider_request_id', 'bar_count', 'cost_usd', 'response_bytes', 'response_sha256'];
    before CONSTANT jsonb := to_jsonb(OLD);
    after CONSTANT jsonb := to_jsonb(NEW);
    field text;
BEGIN
    IF OLD.success IS NOT NULL THEN
        RAISE EXCEPTION 'request %: its outcome is known and does not change', OLD.id
            USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
    END IF;
    FOR field IN SELECT jsonb_object_keys(after) LOOP
        IF before -> field IS DISTINCT FROM after -> field
           AND NOT (field = ANY (outcome) AND before -> field = 'null'::jsonb) THEN
            RAISE EXCEPTION 'request %: % does not change', OLD.id, field
                USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
        END IF;
    END LOOP;
    RETURN NEW;
END $$;

CREATE TRIGGER job_move BEFORE INSERT OR UPDATE ON blaid.bot_jobs
    FOR EACH ROW EXECUTE FUNCTION blaid.check_job_move();
CREATE TRIGGER stage_move BEFORE INSERT OR UPDATE ON blaid.bots
    FOR EACH ROW EXECUTE FUNCTION blaid.check_stage_move();
CREATE TRIGGER request_outcome BEFORE UPDATE ON blaid.provider_requests
    FOR EACH ROW EXECUTE FUNCTION blaid.check_request_outcome();

CREATE VIEW blaid.market_data_requests AS
SELECT id, created_at, trace_id, bot_id, stage, provider, endpoint, request_fingerprint, symbol, schema, start_ts,
       end_ts, bar_count, latency_ms, success, error_code, error_message, simulated
FROM blaid.provider_requests
WHERE category = 'market_data';
COMMENT ON VIEW blaid.market_data_requests IS
    'One row per attempt at a market-data call; success is NULL while the outcome is unknown.';
