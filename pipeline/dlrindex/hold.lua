-- Extends the lock of the process that rebuilds the index: 1, or 0 when another process holds it or Redis lost it.
-- KEYS: marker, lock. ARGV: owner, lifetime of the lock in ms.
if redis.call('GET',KEYS[2])~=ARGV[1] then return 0 end
return redis.call('PEXPIRE',KEYS[2],ARGV[2])
