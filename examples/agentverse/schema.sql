-- The AgentVerse platform's schema, in small: what a database owner who is no superuser can create on Amazon RDS,
-- without any extension. Read in two parts around the marker line below, so that a bulk load meets neither an
-- index nor a foreign key.

CREATE TYPE run_status AS ENUM ('queued', 'running', 'succeeded', 'failed', 'cancelled');

CREATE TABLE projects (
    id             uuid        NOT NULL DEFAULT gen_random_uuid(),
    slug           text        NOT NULL,
    name           text        NOT NULL,
    description    text        NOT NULL DEFAULT '',
    owner_email    text        NOT NULL,
    plan           text        NOT NULL DEFAULT 'team',
    tags           text[]      NOT NULL DEFAULT '{}',
    settings       jsonb       NOT NULL DEFAULT '{}',
    monthly_budget numeric(12, 2),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    archived_at    timestamptz,
    CONSTRAINT projects_slug_form CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$'),
    CONSTRAINT projects_owner_is_an_address CHECK (owner_email LIKE '%_@_%'),
    CONSTRAINT projects_plan_known CHECK (plan IN ('free', 'team', 'enterprise')),
    CONSTRAINT projects_budget_not_negative CHECK (monthly_budget >= 0)
);

CREATE TABLE personas (
    id          uuid          NOT NULL DEFAULT gen_random_uuid(),
    project_id  uuid          NOT NULL,
    name        text          NOT NULL,
    role        text          NOT NULL,
    biography   text          NOT NULL DEFAULT '',
    skills      text[]        NOT NULL DEFAULT '{}',
    traits      jsonb         NOT NULL DEFAULT '{}',
    temperature numeric(3, 2) NOT NULL DEFAULT 0.70,
    created_at  timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT personas_temperature_range CHECK (temperature BETWEEN 0 AND 2),
    CONSTRAINT personas_traits_are_an_object CHECK (jsonb_typeof(traits) = 'object')
);

-- A simulated world branches: each node is one state of it, reached from its parent.
CREATE TABLE nodes (
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    project_id uuid        NOT NULL,
    parent_id  bigint,
    depth      integer     NOT NULL DEFAULT 0,
    title      text        NOT NULL,
    state      jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT nodes_only_a_root_has_no_parent CHECK ((parent_id IS NULL) = (depth = 0)),
    CONSTRAINT nodes_depth_not_negative CHECK (depth >= 0)
);

CREATE TABLE runs (
    id          uuid           NOT NULL DEFAULT gen_random_uuid(),
    project_id  uuid           NOT NULL,
    node_id     bigint         NOT NULL,
    persona_ids uuid[]         NOT NULL,
    status      run_status     NOT NULL DEFAULT 'queued',
    model       text           NOT NULL,
    seed        bigint         NOT NULL,
    parameters  jsonb          NOT NULL DEFAULT '{}',
    tokens_in   bigint         NOT NULL DEFAULT 0,
    tokens_out  bigint         NOT NULL DEFAULT 0,
    cost_usd    numeric(12, 6) NOT NULL DEFAULT 0,
    error       text,
    queued_at   timestamptz    NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,
    duration    interval       GENERATED ALWAYS AS (finished_at - started_at) STORED,
    CONSTRAINT runs_have_personas CHECK (cardinality(persona_ids) > 0),
    CONSTRAINT runs_in_order_of_time CHECK (queued_at <= started_at AND started_at <= finished_at),
    CONSTRAINT runs_end_when_they_end CHECK ((finished_at IS NULL) = (status IN ('queued', 'running'))),
    CONSTRAINT runs_fail_with_a_reason CHECK ((error IS NOT NULL) = (status = 'failed')),
    CONSTRAINT runs_cost_not_negative CHECK (cost_usd >= 0 AND tokens_in >= 0 AND tokens_out >= 0)
);

CREATE TABLE run_events (
    id       bigint      GENERATED ALWAYS AS IDENTITY,
    run_id   uuid        NOT NULL,
    sequence integer     NOT NULL,
    actor_id uuid,
    kind     text        NOT NULL,
    tokens   integer     NOT NULL DEFAULT 0,
    at       timestamptz NOT NULL DEFAULT now(),
    payload  jsonb       NOT NULL,
    CONSTRAINT run_events_sequence_from_one CHECK (sequence >= 1),
    CONSTRAINT run_events_kind_known CHECK (kind IN ('message', 'tool_call', 'observation', 'decision', 'metric'))
);

CREATE TABLE reports (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    run_id       uuid        NOT NULL,
    title        text        NOT NULL,
    format       text        NOT NULL DEFAULT 'markdown',
    body         text        NOT NULL,
    sha256       bytea       NOT NULL,
    scores       numeric[]   NOT NULL DEFAULT '{}',
    summary      jsonb       NOT NULL DEFAULT '{}',
    generated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reports_format_known CHECK (format IN ('markdown', 'html', 'json')),
    CONSTRAINT reports_body_matches_its_digest CHECK (sha256 = sha256(convert_to(body, 'UTF8')))
);

-- ==== after the data ====

ALTER TABLE projects ADD CONSTRAINT projects_pkey PRIMARY KEY (id);
ALTER TABLE projects ADD CONSTRAINT projects_slug_key UNIQUE (slug);
ALTER TABLE personas ADD CONSTRAINT personas_pkey PRIMARY KEY (id);
ALTER TABLE personas ADD CONSTRAINT personas_project_id_name_key UNIQUE (project_id, name);
ALTER TABLE nodes ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);
ALTER TABLE nodes ADD CONSTRAINT nodes_project_id_id_key UNIQUE (project_id, id);
ALTER TABLE runs ADD CONSTRAINT runs_pkey PRIMARY KEY (id);
ALTER TABLE run_events ADD CONSTRAINT run_events_pkey PRIMARY KEY (id);
ALTER TABLE run_events ADD CONSTRAINT run_events_run_id_sequence_key UNIQUE (run_id, sequence);
ALTER TABLE reports ADD CONSTRAINT reports_pkey PRIMARY KEY (id);
ALTER TABLE reports ADD CONSTRAINT reports_run_id_format_key UNIQUE (run_id, format);

CREATE INDEX projects_tags_idx ON projects USING gin (tags);
CREATE INDEX personas_traits_idx ON personas USING gin (traits jsonb_path_ops);
CREATE INDEX nodes_parent_id_idx ON nodes (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX nodes_state_idx ON nodes USING gin (state jsonb_path_ops);
CREATE INDEX runs_project_id_queued_at_idx ON runs (project_id, queued_at DESC);
CREATE INDEX runs_node_id_idx ON runs (node_id);
CREATE INDEX runs_unfinished_idx ON runs (queued_at) WHERE status IN ('queued', 'running');
CREATE INDEX run_events_at_idx ON run_events USING brin (at);
CREATE INDEX run_events_actor_id_idx ON run_events (actor_id) WHERE actor_id IS NOT NULL;
CREATE INDEX reports_search_idx ON reports (lower(title) text_pattern_ops);

ALTER TABLE personas ADD CONSTRAINT personas_project_id_fkey
    FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE;
ALTER TABLE nodes ADD CONSTRAINT nodes_project_id_fkey
    FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE;
-- Both columns, so that a parent is always a node of the same project.
ALTER TABLE nodes ADD CONSTRAINT nodes_parent_fkey
    FOREIGN KEY (project_id, parent_id) REFERENCES nodes (project_id, id) ON DELETE CASCADE;
ALTER TABLE runs ADD CONSTRAINT runs_project_id_fkey
    FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE;
ALTER TABLE runs ADD CONSTRAINT runs_node_fkey
    FOREIGN KEY (project_id, node_id) REFERENCES nodes (project_id, id);
ALTER TABLE run_events ADD CONSTRAINT run_events_run_id_fkey
    FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE;
ALTER TABLE run_events ADD CONSTRAINT run_events_actor_id_fkey
    FOREIGN KEY (actor_id) REFERENCES personas (id) ON DELETE SET NULL;
ALTER TABLE reports ADD CONSTRAINT reports_run_id_fkey
    FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE;

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END;
$$;

CREATE TRIGGER projects_touch_updated_at BEFORE UPDATE ON projects
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE FUNCTION node_path(node bigint) RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE path (id, parent_id, depth, title) AS (
        SELECT id, parent_id, depth, title FROM public.nodes WHERE id = node
        UNION ALL
        SELECT parent.id, parent.parent_id, parent.depth, parent.title
        FROM public.nodes AS parent JOIN path ON parent.id = path.parent_id
    )
    SELECT array_agg(title ORDER BY depth) FROM path;
$$;

CREATE VIEW project_activity AS
SELECT
    project.id AS project_id,
    project.slug,
    count(run.id) AS runs,
    count(run.id) FILTER (WHERE run.status = 'failed') AS failed_runs,
    sum(run.cost_usd) AS cost_usd,
    max(run.queued_at) AS last_run_at
FROM projects AS project
LEFT JOIN runs AS run ON run.project_id = project.id
GROUP BY project.id, project.slug;

COMMENT ON TABLE run_events IS 'What happened in a run, in order; by far the largest table of the platform.';
COMMENT ON COLUMN nodes.state IS 'The world at this node: clock, mood, inventory.';
COMMENT ON VIEW project_activity IS 'One row per project: how much it ran, what that cost.';
