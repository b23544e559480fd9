package schemas

import (
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Kinds of domains.
const (
	DomainShort  = "short"   // of the links in a text
	DomainOptOut = "opt_out" // of the opt-out link
)

// DomainBase returns the address before the token of a link on a domain.
func DomainBase(host string) string { return "https://" + host + "/" }

// PickDomain returns the share of the recipient with a rank, from 0, among the n recipients of a block. Of the ranks
// below n, exactly count of each share get it, spread over the whole block. It returns nil if the counts do not reach
// the rank.
func PickDomain(shares []*fanfarev1.DomainBlock_Share, rank, n uint32) *fanfarev1.DomainBlock_Share {
	if n == 0 || rank >= n {
		return nil
	}
	at := uint64(rank) * spread(uint64(n)) % uint64(n)
	for _, s := range shares {
		if at < uint64(s.GetCount()) {
			return s
		}
		at -= uint64(s.GetCount())
	}
	return nil
}

// spread returns a number near 0.618 n without a divisor in common with n. Multiples of it, modulo n, hit each number
// below n once, and neighbours are far apart.
func spread(n uint64) uint64 {
	for step := n * 618 / 1000; step > 1; step-- {
		a, b := n, step
		for b > 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return step
		}
	}
	return 1
}

// ReasonNoDomains is the reason of a campaign that is suspended because no domain that it may use has room for another
// recipient.
const ReasonNoDomains = "no_domains"

// DomainRequest asks the store for domains for recipients of one blob of a frozen audience.
type DomainRequest struct {
	Tenant, Campaign string
	Number           uint64 // of the campaign
	FreezeID         string
	Blob             uint32
	First            uint32 // seq of the first recipient of the blob
	Want             uint32 // recipients that are to get a domain beyond those of the blob that have one
}

// SeqRange is the recipients [First, End).
type SeqRange struct{ First, End uint32 }
