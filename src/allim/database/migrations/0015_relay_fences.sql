-- Relays of events that ended without a word, and what they may still have under way at a broker.

-- Nothing that this incarnation handed over can reach a consumer any more: it ended in peace, or
-- its publishers were told to keep it out.
ALTER TABLE relay ADD COLUMN fenced boolean NOT NULL DEFAULT false;

UPDATE relay SET fenced = true WHERE retired;
