-- The databases of a site as they are on the first night. Deterministic: the sequence engine counts, and hashes of the count are the data.
CREATE DATABASE whitehall CHARACTER SET utf8mb4;
USE whitehall;
CREATE TABLE editions (
  id INT AUTO_INCREMENT PRIMARY KEY, slug VARCHAR(64) NOT NULL UNIQUE, title VARCHAR(200), body TEXT, words INT AS (LENGTH(body) DIV 6) STORED,
  state ENUM('draft', 'published') NOT NULL, price DECIMAL(12, 4), updated DATETIME(6) NOT NULL, KEY (updated), FULLTEXT KEY (title)
) ENGINE = InnoDB;
INSERT INTO editions (slug, title, body, state, price, updated)
  SELECT CONCAT('edition-', seq), CONCAT('Título № ', seq, ' 😀 it''s "quoted"\\\n\tand more'),
    IF(seq % 97 = 0, NULL, REPEAT(CONCAT(MD5(seq), ' MARKER 5d1f0b: no byte of this may lie anywhere in the clear\r\n'), 1 + seq % 4)),
    1 + seq % 2, seq / 7, '2024-01-01 00:00:00.123456' + INTERVAL seq MINUTE
  FROM seq_1_to_15000;
CREATE TABLE attachments (
  edition INT NOT NULL, n TINYINT UNSIGNED NOT NULL, content MEDIUMBLOB, PRIMARY KEY (edition, n),
  FOREIGN KEY (edition) REFERENCES editions (id) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = COMPRESSED;
INSERT INTO attachments
  SELECT seq, seq % 5, REPEAT(CONCAT(UNHEX(SHA2(seq, 512)), '\0\Z\'"\\\r\n'), 1 + seq % 50) FROM seq_1_to_2000;
CREATE TABLE audit (at TIMESTAMP NULL, what VARCHAR(200)) ENGINE = Aria;
CREATE TABLE sessions (id BINARY(16) PRIMARY KEY, data VARBINARY(500)) ENGINE = MyISAM;
INSERT INTO sessions SELECT UNHEX(MD5(seq)), UNHEX(SHA2(seq, 256)) FROM seq_1_to_5000;
CREATE VIEW published AS SELECT id, slug, UPPER(title) AS heading FROM editions WHERE state = 'published';
DELIMITER //
CREATE TRIGGER note_changes AFTER UPDATE ON editions FOR EACH ROW INSERT INTO audit VALUES (NEW.updated, CONCAT('changed; ', OLD.slug)) //
CREATE PROCEDURE retitle(IN wanted INT, IN words VARCHAR(200)) BEGIN
  UPDATE editions SET title = words, updated = updated + INTERVAL 1 DAY WHERE id = wanted;
END //
CREATE FUNCTION reading_minutes(words INT) RETURNS INT DETERMINISTIC RETURN CEIL(words / 200) //
DELIMITER ;

CREATE DATABASE `press-releases` CHARACTER SET latin1 COLLATE latin1_german1_ci;
USE `press-releases`;
CREATE TABLE `of the year` (
  y YEAR NOT NULL, n INT NOT NULL, `text, with a comma` VARCHAR(300), extra LONGTEXT CHECK (JSON_VALID(extra)), PRIMARY KEY (y, n)
) ENGINE = InnoDB PARTITION BY RANGE (y) (PARTITION old VALUES LESS THAN (2010), PARTITION rest VALUES LESS THAN MAXVALUE);
INSERT INTO `of the year` SELECT 2000 + seq % 24, seq, CONVERT(CONCAT('Presseerklärung ', SHA1(seq)) USING latin1), JSON_OBJECT('n', seq) FROM seq_1_to_8000;
CREATE TABLE nothing (id INT PRIMARY KEY) ENGINE = InnoDB;

CREATE DATABASE licensing;
USE licensing;
CREATE TABLE licences (id INT PRIMARY KEY, holder VARCHAR(100), granted BIT(8)) ENGINE = InnoDB;
INSERT INTO licences SELECT seq, CONCAT('holder ', MD5(seq)), seq % 256 FROM seq_1_to_1000;
