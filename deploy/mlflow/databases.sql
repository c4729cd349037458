-- sudo -u postgres psql -f deploy/mlflow/databases.sql
CREATE ROLE mlflow LOGIN;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
