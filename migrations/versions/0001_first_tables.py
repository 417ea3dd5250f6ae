"""The first tables, roles and row security.

A migration is history: it spells out its SQL and never imports `circuit.storage.tables`, which moves on.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Roles belong to the server, not to the database: another database's upgrade may make them at the same moment, so
# losing that race is no fault. Who may make the role may also grant it to himself (a superuser needs no grant).
ROLE = """
DO $do$
DECLARE
    may_set boolean;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        BEGIN
            CREATE ROLE {role} NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role {role} does not exist and % may not create it', current_user
                    USING ERRCODE = 'insufficient_privilege',
                    HINT = format('as a superuser: CREATE ROLE {role} NOLOGIN; GRANT {role} TO %I;', current_user);
        END;
    END IF;
    IF current_setting('server_version_num')::int >= 160000 THEN
        may_set := pg_has_role(current_user, '{role}', 'SET');
    ELSE
        may_set := pg_has_role(current_user, '{role}', 'MEMBER');
    END IF;
    IF NOT may_set THEN
        BEGIN
            GRANT {role} TO CURRENT_USER;
        EXCEPTION
            WHEN unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION '% is no member of the role {role} and may not grant it to itself', current_user
                    USING ERRCODE = 'insufficient_privilege',
                    HINT = format('as a superuser: GRANT {role} TO %I;', current_user);
        END;
    END IF;
END
$do$
"""

TABLES = (
    """
    CREATE TABLE circuit.tenant (
        tenant_id int4 NOT NULL,
        name text NOT NULL,
        settings jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id)
    )
    """,
    """
    CREATE TABLE circuit.workflow_version (
        tenant_id int4 NOT NULL,
        workflow_id text NOT NULL,
        hash text NOT NULL,
        document json NOT NULL,
        requires jsonb NOT NULL DEFAULT '{}',
        published_at timestamptz NOT NULL DEFAULT now(),
        published_by text NOT NULL,
        PRIMARY KEY (tenant_id, workflow_id, hash)
    )
    """,
    """
    CREATE TABLE circuit.workflow (
        tenant_id int4 NOT NULL,
        workflow_id text NOT NULL,
        hash text NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, workflow_id),
        CONSTRAINT workflow_current_version FOREIGN KEY (tenant_id, workflow_id, hash)
            REFERENCES circuit.workflow_version (tenant_id, workflow_id, hash)
    )
    """,
    """
    CREATE TABLE circuit.agent_version (
        tenant_id int4 NOT NULL,
        agent_id text NOT NULL,
        hash text NOT NULL,
        document json NOT NULL,
        published_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, agent_id, hash)
    )
    """,
    """
    CREATE TABLE circuit.prompt_version (
        tenant_id int4 NOT NULL,
        prompt_id text NOT NULL,
        hash text NOT NULL,
        document json NOT NULL,
        published_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, prompt_id, hash)
    )
    """,
    """
    CREATE TABLE circuit.worker (
        id uuid NOT NULL,
        host text NOT NULL,
        boot_id text NOT NULL,
        pid int4 NOT NULL,
        pid_started float8 NOT NULL,
        pools text[] NOT NULL DEFAULT '{}',
        started_at timestamptz NOT NULL DEFAULT now(),
        fenced boolean NOT NULL DEFAULT false,
        retired_at timestamptz,
        PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE circuit.worker_lease (
        worker_id uuid NOT NULL,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (worker_id)
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE circuit.case (
        tenant_id int4 NOT NULL,
        case_id uuid NOT NULL,
        workflow_id text NOT NULL,
        workflow_hash text NOT NULL,
        status text NOT NULL,
        owner uuid,
        seq int4 NOT NULL,
        next_token int4 NOT NULL,
        next_firing int4 NOT NULL,
        next_incident int4 NOT NULL,
        parameters jsonb NOT NULL DEFAULT '{}',
        started_at timestamptz NOT NULL,
        finished_at timestamptz,
        PRIMARY KEY (tenant_id, case_id),
        CONSTRAINT case_status CHECK (
            status IN ('running', 'waiting', 'attention', 'stuck', 'completed', 'failed', 'cancelled')
        )
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX case_owner ON circuit.case (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX case_workflow ON circuit.case (tenant_id, workflow_id, case_id)",
    """
    CREATE TABLE circuit.case_key (
        tenant_id int4 NOT NULL,
        key text NOT NULL,
        case_id uuid NOT NULL,
        PRIMARY KEY (tenant_id, key)
    )
    """,
    """
    CREATE TABLE circuit.ready (
        bucket int2 NOT NULL DEFAULT 0,
        tenant_id int4 NOT NULL,
        case_id uuid NOT NULL,
        due_at timestamptz NOT NULL,
        PRIMARY KEY (tenant_id, case_id)
    )
    """,
    "CREATE INDEX ready_due ON circuit.ready (due_at)",
)

# name -> (columns and keys, fill factor of its partitions)
PARTITIONED = {
    "token": (
        """
        number int4 NOT NULL,
        version int4 NOT NULL,
        place text NOT NULL,
        data jsonb NOT NULL,
        metadata jsonb NOT NULL,
        entered_at timestamptz NOT NULL,
        available_at timestamptz,
        reserved_by int4,
        PRIMARY KEY (tenant_id, case_id, number)
        """,
        50,
    ),
    "history": (
        """
        seq int4 NOT NULL,
        kind text NOT NULL,
        at timestamptz NOT NULL,
        transition text,
        firing int4,
        body json NOT NULL,
        PRIMARY KEY (tenant_id, case_id, seq)
        """,
        100,
    ),
    "firing": (
        """
        number int4 NOT NULL,
        transition text NOT NULL,
        state text NOT NULL,
        attempt int4 NOT NULL,
        start int4 NOT NULL,
        crashes int4 NOT NULL DEFAULT 0,
        request jsonb NOT NULL,
        retry_at timestamptz,
        error jsonb,
        begun_at timestamptz,
        PRIMARY KEY (tenant_id, case_id, number)
        """,
        50,
    ),
    "journal": (
        """
        firing int4 NOT NULL,
        attempt int4 NOT NULL,
        step text NOT NULL,
        value json NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, case_id, firing, attempt, step)
        """,
        100,
    ),
    "execution": (
        """
        firing int4 NOT NULL,
        status text NOT NULL,
        agent_id text,
        model text,
        descriptor jsonb NOT NULL,
        started_at timestamptz NOT NULL,
        finished_at timestamptz,
        usage jsonb NOT NULL DEFAULT '{}',
        error jsonb,
        PRIMARY KEY (tenant_id, case_id, firing)
        """,
        70,
    ),
    "stream_event": (
        """
        firing int4 NOT NULL,
        start int4 NOT NULL,
        seq int4 NOT NULL,
        type text NOT NULL,
        at timestamptz NOT NULL,
        frame text NOT NULL,
        PRIMARY KEY (tenant_id, case_id, firing, start, seq)
        """,
        100,
    ),
    "command": (
        """
        command_id uuid NOT NULL,
        kind text NOT NULL,
        payload jsonb NOT NULL,
        principal jsonb NOT NULL,
        idempotency_key text,
        state text NOT NULL DEFAULT 'pending',
        result jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        settled_at timestamptz,
        PRIMARY KEY (tenant_id, case_id, command_id),
        CONSTRAINT command_idempotency UNIQUE (tenant_id, case_id, idempotency_key)
        """,
        70,
    ),
    "incident": (
        """
        number int4 NOT NULL,
        transition text NOT NULL,
        firing int4,
        code text NOT NULL,
        message text NOT NULL,
        blocks jsonb NOT NULL DEFAULT '[]',
        raised_at timestamptz NOT NULL,
        resolved_at timestamptz,
        resolved_by text,
        PRIMARY KEY (tenant_id, case_id, number)
        """,
        100,
    ),
}

FUNCTIONS = (
    # What a writer puts beside its guards, so that a guard that does not hold rolls the whole batch back.
    """
    CREATE FUNCTION circuit.require(ok boolean, state text, message text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF ok IS NOT TRUE THEN
            RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message;
        END IF;
        RETURN true;
    END
    $$
    """,
    """
    CREATE FUNCTION circuit.refuse_terminal() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = 'CT001',
            MESSAGE = format('%s that is %s never changes', TG_ARGV[0], OLD.status);
    END
    $$
    """,
    # A trigger costs nothing while its condition is false. A case that has ended may still lose its owner, and its
    # parameters may be redacted.
    """
    CREATE TRIGGER terminal BEFORE UPDATE ON circuit.case FOR EACH ROW
    WHEN (
        OLD.status IN ('completed', 'failed', 'cancelled')
        AND (OLD.status, OLD.seq, OLD.next_token, OLD.next_firing, OLD.next_incident,
             OLD.workflow_id, OLD.workflow_hash, OLD.started_at, OLD.finished_at)
            IS DISTINCT FROM
            (NEW.status, NEW.seq, NEW.next_token, NEW.next_firing, NEW.next_incident,
             NEW.workflow_id, NEW.workflow_hash, NEW.started_at, NEW.finished_at)
    )
    EXECUTE FUNCTION circuit.refuse_terminal('a case')
    """,
    """
    CREATE TRIGGER terminal BEFORE UPDATE ON circuit.execution FOR EACH ROW
    WHEN (OLD.status IN ('completed', 'failed', 'cancelled') AND OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION circuit.refuse_terminal('an execution')
    """,
    # Makes one weekly partition. It runs with the rights of the tables' owner, so that a worker, which has only the
    # engine's role, can make the coming weeks. Attaching a table that was made apart takes a lock on the parent that
    # readers and writers do not feel; CREATE TABLE ... PARTITION OF would stop them all.
    """
    CREATE FUNCTION circuit.add_partition(parent text, suffix text, lower_bound uuid, upper_bound uuid) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS $$
    DECLARE
        child text := parent || '_' || suffix;
        options text;
    BEGIN
        PERFORM pg_advisory_xact_lock(x'63697264'::int4);
        IF to_regclass(format('circuit.%I', child)) IS NOT NULL THEN
            RETURN 'exists';
        END IF;
        SELECT array_to_string(c.reloptions, ', ') INTO STRICT options
        FROM pg_partitioned_table p
        JOIN pg_class c ON c.oid = p.partdefid
        WHERE p.partrelid = format('circuit.%I', parent)::regclass;
        BEGIN
            EXECUTE format(
                'CREATE TABLE circuit.%I (LIKE circuit.%I INCLUDING ALL) WITH (%s)',
                child, parent, coalesce(options, 'fillfactor = 100')
            );
            EXECUTE format(
                'ALTER TABLE circuit.%I ATTACH PARTITION circuit.%I FOR VALUES FROM (%L) TO (%L)',
                parent, child, lower_bound, upper_bound
            );
        EXCEPTION WHEN check_violation THEN
            -- Rows of this range lie in the default partition already: there they stay, and are found.
            RETURN 'default';
        END;
        RETURN 'made';
    END
    $$
    """,
    "REVOKE EXECUTE ON FUNCTION circuit.add_partition FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION circuit.add_partition TO circuit_engine",
)

# What the role of requests may do. It reads everything of its tenant, and writes what starting a case, sending a
# command and publishing need. Of workers it sees nothing.
TENANT_RIGHTS = {
    "tenant": "SELECT",
    "workflow_version": "SELECT, INSERT",
    "workflow": "SELECT, INSERT, UPDATE (hash, updated_at)",
    "agent_version": "SELECT, INSERT",
    "prompt_version": "SELECT, INSERT",
    "case": "SELECT, INSERT (tenant_id, case_id, workflow_id, workflow_hash, status, seq, next_token, next_firing,"
    " next_incident, parameters, started_at)",
    "case_key": "SELECT, INSERT",
    "ready": "SELECT, INSERT (tenant_id, case_id, due_at), UPDATE (due_at)",
    "token": "SELECT, INSERT (tenant_id, case_id, number, version, place, data, metadata, entered_at, available_at)",
    "history": "SELECT, INSERT (tenant_id, case_id, seq, kind, at, body)",
    "firing": "SELECT",
    "journal": "SELECT",
    "execution": "SELECT",
    "stream_event": "SELECT",
    "command": "SELECT, INSERT (tenant_id, case_id, command_id, kind, payload, principal, idempotency_key)",
    "incident": "SELECT",
}
WORKER_TABLES = ("worker", "worker_lease")

# At the end of a transaction Postgres leaves a setting that was local to it as '', not as null.
THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

# A case that this very transaction has started: its tokens and its first event may be written, and nothing may be
# slipped in later. (A row that was written within a savepoint has the number of the savepoint: a start uses none.)
STARTED_HERE = """
EXISTS (
    SELECT 1 FROM circuit.case started
    WHERE started.tenant_id = {table}.tenant_id AND started.case_id = {table}.case_id
        AND started.owner IS NULL AND started.seq = 1 AND started.xmin = pg_current_xact_id()::xid
)"""
# What a row must be that a request inserts, beside being of its tenant. What the grants above leave out has its
# default.
TENANT_INSERTS = {
    "case": "status = 'running' AND seq = 1 AND next_token >= 1 AND next_firing = 1 AND next_incident = 1",
    "token": f"version = 1 AND {STARTED_HERE.format(table='token')}",
    "history": f"seq = 1 AND kind = 'case_started' AND {STARTED_HERE.format(table='history')}",
    "command": "state = 'pending' AND result IS NULL AND settled_at IS NULL",
}


def upgrade() -> None:
    for role in ("circuit_engine", "circuit_tenant"):
        op.execute(ROLE.replace("{role}", role))
    for statement in TABLES:
        op.execute(statement)
    for table, (columns, fillfactor) in PARTITIONED.items():
        op.execute(
            f"CREATE TABLE circuit.{table} (tenant_id int4 NOT NULL, case_id uuid NOT NULL, {columns})"
            " PARTITION BY RANGE (case_id)"
        )
        # The net under the weekly partitions: a row always finds a place. It also holds the options of the others.
        op.execute(
            f"CREATE TABLE circuit.{table}_default PARTITION OF circuit.{table} DEFAULT"
            f" WITH (fillfactor = {fillfactor})"
        )
    for statement in FUNCTIONS:
        op.execute(statement)
    op.execute("GRANT USAGE ON SCHEMA circuit TO circuit_engine, circuit_tenant")
    op.execute("GRANT SELECT ON circuit.alembic_version TO circuit_engine, circuit_tenant")
    # The partitions get neither rights nor policies: every query goes through the parent, whose own count.
    for table in (*TENANT_RIGHTS, *WORKER_TABLES):
        op.execute(f"ALTER TABLE circuit.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.{table} TO circuit_engine")
        op.execute(f"CREATE POLICY engine ON circuit.{table} TO circuit_engine USING (true) WITH CHECK (true)")
    for table, rights in TENANT_RIGHTS.items():
        op.execute(f"GRANT {rights} ON circuit.{table} TO circuit_tenant")
        op.execute(
            f"CREATE POLICY tenant ON circuit.{table} TO circuit_tenant"
            f" USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})"
        )
    for table, check in TENANT_INSERTS.items():
        op.execute(
            f"CREATE POLICY tenant_insert ON circuit.{table} AS RESTRICTIVE FOR INSERT TO circuit_tenant"
            f" WITH CHECK ({check})"
        )
    op.execute("INSERT INTO circuit.tenant (tenant_id, name) VALUES (1, 'local')")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
