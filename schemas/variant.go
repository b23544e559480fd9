package schemas

// VariantOf returns the variant of a recipient, from 1; 0 when there are no weights. It depends only on the campaign,
// the recipient and the weights, so that every component gets the same result.
func VariantOf(campaign uint64, seq uint32, weights []uint32) int {
	var sum uint64
	for _, w := range weights {
		sum += uint64(w)
	}
	if sum == 0 {
		return 0
	}
	// SplitMix64 (Steele, Lea, Flood 2014): every bit of the input changes about half of the output.
	x := campaign<<24 ^ uint64(seq)
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	at := x % sum
	for i, w := range weights {
		if at < uint64(w) {
			return i + 1
		}
		at -= uint64(w)
	}
	return 0
}
