-- mariadb -u root -p < mysql.sql (or mysql -u root -p), after choosing a password below; then:
--   export HPSEARCH_STORE=mysql+pymysql://hpsearch:PASSWORD@HOST/hpsearch
CREATE DATABASE hpsearch CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER 'hpsearch'@'%' IDENTIFIED BY 'choose-a-password';
GRANT ALL PRIVILEGES ON hpsearch.* TO 'hpsearch'@'%';
