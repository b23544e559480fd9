// Package importfile reads files of contacts: it turns CSV, JSON, Excel workbooks and vCards into rows of cells, each
// cell under a column whose meaning is known. It does not know how contacts are stored, and uses no database.
//
// Files are read as a stream: memory holds one row and a buffer of fixed size, however long the file is (a workbook
// also uses files on disk). A row that cannot be read is a [RowError], and reading goes on with the next row. What is
// wrong with the file as a whole is a [FileError]. Any other error comes from the stream itself.
package importfile
