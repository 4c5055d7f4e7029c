-- Two roles instead of one that may do everything:
--
--   data_layer_owner     owns the tables: `data-layer db migrate` and `data-layer maintenance run`
--   data_layer_service   reads and writes rows: the service. It can neither change tables nor switch off a trigger, so
--                        the audit trail stays what it is even for somebody who holds its password.
--
-- For an administrator (a superuser, or the first user of a managed server), connected to the database of the data
-- layer, which nobody else uses: what is in its schema public, the owner gets. PostgreSQL 15 or later. Harmless to repeat. Run it before the first migration, and once more after it, when
-- there are tables of which some rights can be taken away. Passwords are set beside it, so that none stands here:
--
--   psql --dbname=screenshot_to_code --file=roles.sql
--   psql --dbname=screenshot_to_code --command='\password data_layer_owner' --command='\password data_layer_service'

DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'data_layer_owner') THEN
        CREATE ROLE data_layer_owner LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'data_layer_service') THEN
        CREATE ROLE data_layer_service LOGIN;
    END IF;
    -- Who is no superuser may act for the owner only as its member.
    IF NOT pg_has_role(current_user, 'data_layer_owner', 'USAGE') THEN
        EXECUTE format('GRANT data_layer_owner TO %I', current_user);
    END IF;
    EXECUTE format('GRANT ALL ON DATABASE %I TO data_layer_owner', current_database());
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO data_layer_service', current_database());
    EXECUTE format('ALTER DATABASE %I OWNER TO data_layer_owner', current_database());
END
$roles$;

-- What another role has made before, by migrating without these two.
DO $inheritance$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT 'TABLE ' || oid::regclass AS thing FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND relowner <> 'data_layer_owner'::regrole
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
        UNION ALL
        SELECT 'FUNCTION ' || oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proowner <> 'data_layer_owner'::regrole
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
    LOOP
        EXECUTE format('ALTER %s OWNER TO data_layer_owner', one.thing);
    END LOOP;
END
$inheritance$;

-- Worth having, and not needed: names are found with typing errors.
DO $trigrams$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'pg_trgm was left out: %', SQLERRM;
END
$trigrams$;

-- Worth having, and not needed: which statements take the server's time, and how far replicas are behind.
DO $statistics$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements') THEN
        CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
    END IF;
    GRANT pg_read_all_stats TO data_layer_service;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'pg_stat_statements and pg_read_all_stats were left out: %', SQLERRM;
END
$statistics$;

-- As the owner, because what it creates later gets the rights that it has promised itself.
SET ROLE data_layer_owner;
GRANT USAGE ON SCHEMA public TO data_layer_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO data_layer_service;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO data_layer_service;
DO $history$
BEGIN
    IF to_regclass('public.audit_logs') IS NOT NULL THEN
        REVOKE UPDATE, DELETE ON public.audit_logs FROM data_layer_service;
        REVOKE INSERT, UPDATE, DELETE ON public.data_layer_schema_version FROM data_layer_service;
    END IF;
    IF to_regclass('public.usage_entries') IS NOT NULL THEN
        REVOKE UPDATE, DELETE ON public.usage_entries FROM data_layer_service;
    END IF;
END
$history$;
RESET ROLE;
