// Every op's contract, for the files that work on the whole table.
#pragma once
