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
    before CONSTANT jsonb := to_jsonb(OLD);
    after CONSTANT jsonb := to_jsonb(NEW);
    field text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.stage = 'LAB' THEN RETURN NEW; END IF;
        RAISE EXCEPTION 'a bot begins in LAB, not in %', NEW.stage
            USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
    END IF;
    FOR field IN SELECT jsonb_object_keys(after) LOOP
        IF field NOT IN ('stage', 'reset_at') AND before -> field IS DISTINCT FROM after -> field THEN
            RAISE EXCEPTION 'bot %: % does not change', OLD.id, field
                USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
        END IF;
    END LOOP;
    IF NEW.reset_at < OLD.reset_at THEN
        RAISE EXCEPTION 'bot %: its last reset does not move back', OLD.id
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

-- Whether a visible row comes from this transaction, its savepoints included: of all transactions still in progress,
-- only one's own rows are visible. Own ids are never smaller than the transaction's, and xmin has their low 32 bits.
CREATE FUNCTION blaid.written_here(row_xmin xid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    own CONSTANT bigint := pg_current_xact_id()::text::bigint;
    distance CONSTANT bigint := ((row_xmin::text::bigint - own) % 4294967296 + 4294967296) % 4294967296;
BEGIN
    IF distance >= 2147483648 THEN RETURN false; END IF;
    RETURN coalesce(pg_xact_status((own + distance)::text::xid8) = 'in progress', false);
END $$;

-- The four below run at commit: a move and its event are written in one transaction, or neither is.
CREATE FUNCTION blaid.require_stage_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ladder CONSTANT text[] := ARRAY['LAB', 'PAPER', 'SHADOW', 'CANARY', 'LIVE'];
    is_up CONSTANT boolean := array_position(ladder, NEW.stage) > array_position(ladder, OLD.stage);
BEGIN
    IF EXISTS (
        SELECT 1
        FROM blaid.bot_stage_events e LEFT JOIN blaid.promotion_decisions d
            ON d.id = e.decision_id AND d.bot_id = e.bot_id AND d.decision = 'PROMOTE'
               AND d.from_stage = e.from_stage AND d.to_stage = e.to_stage
        WHERE e.bot_id = NEW.id AND e.from_stage = OLD.stage AND e.to_stage = NEW.stage
              AND (d.id IS NOT NULL OR NOT is_up) AND blaid.written_here(e.xmin)
    ) THEN RETURN NULL; END IF;
    RAISE EXCEPTION 'bot %: stage % became % without an event of this move%', OLD.id, OLD.stage, NEW.stage,
        CASE WHEN is_up THEN ' that cites a decision to promote the bot so' ELSE '' END
        USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
END $$;

CREATE FUNCTION blaid.require_stage_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM blaid.bots b JOIN blaid.bot_stage_events e ON e.bot_id = b.id AND e.to_stage = b.stage
        WHERE b.id = NEW.bot_id AND blaid.written_here(b.xmin) AND blaid.written_here(e.xmin)
    ) THEN RETURN NULL; END IF;
    RAISE EXCEPTION 'bot %: an event says % to %, but the bot did not move', NEW.bot_id, NEW.from_stage, NEW.to_stage
        USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
END $$;

CREATE FUNCTION blaid.require_job_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was CONSTANT text := CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END;
BEGIN
    IF EXISTS (
        SELECT 1 FROM blaid.job_run_events e
        WHERE e.job_id = NEW.id AND e.from_status IS NOT DISTINCT FROM was AND e.to_status = NEW.status
              AND blaid.written_here(e.xmin)
    ) THEN RETURN NULL; END IF;
    RAISE EXCEPTION 'job %: % became % without an event of this move', NEW.id, coalesce(was, 'nothing'), NEW.status
        USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
END $$;

CREATE FUNCTION blaid.require_job_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM blaid.bot_jobs j JOIN blaid.job_run_events e ON e.job_id = j.id AND e.to_status = j.status
        WHERE j.id = NEW.job_id AND blaid.written_here(j.xmin) AND blaid.written_here(e.xmin)
    ) THEN RETURN NULL; END IF;
    RAISE EXCEPTION 'job %: an event says % to %, but the job did not move',
        NEW.job_id, coalesce(NEW.from_status, 'nothing'), NEW.to_status
        USING ERRCODE = 'restrict_violation', HINT = 'TRANSITION_NOT_ALLOWED';
END $$;

CREATE TRIGGER job_move BEFORE INSERT OR UPDATE ON blaid.bot_jobs
    FOR EACH ROW EXECUTE FUNCTION blaid.check_job_move();
CREATE TRIGGER stage_move BEFORE INSERT OR UPDATE ON blaid.bots
    FOR EACH ROW EXECUTE FUNCTION blaid.check_stage_move();
CREATE TRIGGER request_outcome BEFORE UPDATE ON blaid.provider_requests
    FOR EACH ROW EXECUTE FUNCTION blaid.check_request_outcome();

CREATE CONSTRAINT TRIGGER stage_move_has_event AFTER UPDATE ON blaid.bots DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.stage IS DISTINCT FROM OLD.stage) EXECUTE FUNCTION blaid.require_stage_event();
CREATE CONSTRAINT TRIGGER event_has_stage_move AFTER INSERT ON blaid.bot_stage_events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION blaid.require_stage_move();
CREATE CONSTRAINT TRIGGER job_begin_has_event AFTER INSERT ON blaid.bot_jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION blaid.require_job_event();
CREATE CONSTRAINT TRIGGER job_move_has_event AFTER UPDATE ON blaid.bot_jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.status IS DISTINCT FROM OLD.status) EXECUTE FUNCTION blaid.require_job_event();
CREATE CONSTRAINT TRIGGER event_has_job_move AFTER INSERT ON blaid.job_run_events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION blaid.require_job_move();

CREATE VIEW blaid.market_data_requests AS
SELECT id, created_at, trace_id, bot_id, stage, provider, endpoint, request_fingerprint, symbol, schema, start_ts,
       end_ts, bar_count, latency_ms, success, error_code, error_message, simulated
FROM blaid.provider_requests
WHERE category = 'market_data';
COMMENT ON VIEW blaid.market_data_requests IS
    'One row per attempt at a market-data call; success is NULL while the outcome is unknown.';
