// Package importfile reads files of contacts: it turns CSV and JSON into rows of cells, each cell under a column whose meaning
// is known. It does not know what a contact is stored as, and uses no database.
//
// Files are read as a stream: one row and a buffer of fixed size are all that is held, however long the file is. A row that
// cannot be read is a [RowError], and reading goes on with the next row. What is wrong with the file as a whole is a
// [FileError]. Any other error comes from the stream itself.
package importfile
