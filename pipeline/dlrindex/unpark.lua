-- Deletes one receipt that was parked under a spelling that turned out to be wrong.
-- KEYS: index entry, parked receipts. ARGV: encoded receipt, phone number.
return redis.call('LREM',KEYS[2],0,ARGV[2]..'|'..ARGV[1])
