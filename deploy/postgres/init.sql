-- One database and one role per service: the services never share one.
CREATE ROLE access LOGIN;
CREATE ROLE audit LOGIN;
CREATE ROLE ingest LOGIN;
CREATE ROLE analytics LOGIN;
CREATE DATABASE access OWNER access;
CREATE DATABASE audit OWNER audit;
CREATE DATABASE ingest OWNER ingest;
CREATE DATABASE analytics OWNER analytics;
REVOKE CONNECT ON DATABASE access, audit, ingest, analytics FROM PUBLIC;
