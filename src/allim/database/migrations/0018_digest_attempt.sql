-- Which attempt of a carrier tells of what it took: only if that one arrives have the others been
-- told. Null: none has them.
ALTER TABLE digest_member ADD COLUMN carrier_attempt integer;
