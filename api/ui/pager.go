package ui

// pager is the line under a table: the total, and links to the neighbouring pages (R135).
type pager struct {
	Path  string
	Page  int // 0-based
	Near  []int
	More  bool
	Text  string
	Total int
}

func newPager(path string, page, limit, total int, text string) pager {
	last := max(0, (total-1)/limit)
	p := pager{Path: path, Page: page, More: page < last, Total: total, Text: mustSay(text, count(total))}
	for i := max(0, page-2); i <= min(last, page+2); i++ {
		p.Near = append(p.Near, i)
	}
	return p
}
