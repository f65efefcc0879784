-- What changes from one night to the next; @night is its number.
USE whitehall;
CALL retitle(1 + @night * 7, CONCAT('retitled in night ', @night));
DELETE FROM editions WHERE id % 1000 = @night;
INSERT INTO editions (slug, body, state, updated)
  SELECT CONCAT('night-', @night, '-', seq), REPEAT(SHA2(seq + @night, 512), 10), 'draft', '2024-02-01' FROM seq_1_to_300;
UPDATE sessions SET data = REVERSE(data) WHERE ORD(id) = @night;
USE `press-releases`;
INSERT INTO `of the year` SELECT 2024, 100000 * @night + seq, MD5(seq), NULL FROM seq_1_to_100;
