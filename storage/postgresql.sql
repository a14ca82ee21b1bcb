-- sudo -u postgres psql < postgresql.sql, then:
--   export HPSEARCH_STORE=postgresql+psycopg://hpsearch@HOST/hpsearch    (the password in ~/.pgpass)
CREATE ROLE hpsearch LOGIN;
\password hpsearch
CREATE DATABASE hpsearch OWNER hpsearch;
