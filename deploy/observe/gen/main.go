// Command gen writes what deploy/observe generates. Its argument is the folder of the module.
package main

import (
	"fmt"
	"os"

	"fanfare/deploy/observe"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FOLDER")
		os.Exit(2)
	}
	if err := observe.Write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
